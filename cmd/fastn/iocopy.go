package main

import (
	"errors"
	"io"
)

// inputError and outputError mark on which side of a copy a failure was.
type inputError struct{ error }
type outputError struct{ error }

func (e inputError) Unwrap() error  { return e.error }
func (e outputError) Unwrap() error { return e.error }

func fromInput(err error) bool {
	_, ok := errors.AsType[inputError](err)
	return ok
}

func fromOutput(err error) bool {
	_, ok := errors.AsType[outputError](err)
	return ok
}

// copyBytes moves bytes as they come until the end of src, and marks errors
// with their side.
func copyBytes(dst io.Writer, src io.Reader) (int64, error) {
	return io.CopyBuffer(onlyWriter{dst}, onlyReader{src}, make([]byte, 256<<10))
}

// onlyReader and onlyWriter hide every other method, of which io.CopyBuffer
// would use some instead.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

func (r onlyReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = inputError{err}
	}
	return n, err
}

func (w onlyWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		err = outputError{err}
	}
	return n, err
}
