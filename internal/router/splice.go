package router

import (
	"errors"
	"io"
	"sync"

	"github.com/fastn-stack/fastnd/service/api"
)

// spliceBuffer is what one direction of a stream reads at once. 64 KiB is what
// the transports hand over at most in one piece.
const spliceBuffer = 64 << 10

var splicePool = sync.Pool{New: func() any { b := make([]byte, spliceBuffer); return &b }}

// Splice copies between a and b until both directions have ended, keeping half
// closes: an end on one side is a CloseWrite on the other. A failure on either
// side resets the other with its code, and is returned.
func Splice(a, b Conn) error {
	var wg sync.WaitGroup
	var there error
	wg.Go(func() { there = pipe(b, a) })
	back := pipe(a, b)
	wg.Wait()
	err := errors.Join(there, back)
	if err == nil {
		return errors.Join(a.Close(), b.Close())
	}
	// Both directions are reset; release what Close releases.
	_ = a.Close()
	_ = b.Close()
	if there != nil {
		return there
	}
	return back
}

// pipe copies src to dst until src ends.
func pipe(dst, src Conn) error {
	buf := splicePool.Get().(*[]byte)
	defer splicePool.Put(buf)
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			if _, werr := dst.Write((*buf)[:n]); werr != nil {
				src.Reset(streamCode(werr))
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			if err := dst.CloseWrite(); err != nil {
				src.Reset(streamCode(err))
				return err
			}
			return nil
		}
		if err != nil {
			dst.Reset(streamCode(err))
			return err
		}
	}
}

// streamCode is the code that a failed stream is reset with on its other side.
func streamCode(err error) api.Code {
	if c := api.CodeOf(err); c != api.CodeInternal {
		return c
	}
	return api.CodeAborted
}
