package router

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/fastn-stack/fastnd/service/api"
)

// spliceBuffer is what one direction of a stream reads at once. 64 KiB is what
// the transports hand over at most in one piece.
const spliceBuffer = 64 << 10

var splicePool = sync.Pool{New: func() any { b := make([]byte, spliceBuffer); return &b }}

// Buffer lends the memory to copy one direction of a stream with, until release:
// a new one for each stream would be most of what streams that do not last cost.
func Buffer() (b []byte, release func()) {
	p := splicePool.Get().(*[]byte)
	return *p, func() { splicePool.Put(p) }
}

// Splice copies between a and b until both directions have ended, keeping half
// closes: an end on one side is a CloseWrite on the other. The first failure on
// either side, the abort of one that is Abortable, or the end of ctx, resets both
// with its code, and is returned. a and b are closed.
func Splice(ctx context.Context, a, b Conn) error {
	var once sync.Once
	var first error
	ended := func(err error) {
		if err == nil {
			return
		}
		once.Do(func() {
			first = err
			code := streamCode(err)
			a.Reset(code)
			b.Reset(code)
		})
	}
	watches := []func(){atEnd(ctx, func() { ended(Ended(ctx)) })}
	for _, c := range []Conn{a, b} {
		if c, ok := c.(Abortable); ok {
			watches = append(watches, atEnd(c.Aborted(), func() { ended(context.Cause(c.Aborted())) }))
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { ended(pipe(b, a)) })
	ended(pipe(a, b))
	wg.Wait()
	for _, stop := range watches {
		stop()
	}
	closed := errors.Join(a.Close(), b.Close())
	if first != nil {
		return first
	}
	return closed
}

// pipe copies src to dst until src ends, and then ends dst.
func pipe(dst, src Conn) error {
	buf, release := Buffer()
	defer release()
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return dst.CloseWrite()
		}
		if err != nil {
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
