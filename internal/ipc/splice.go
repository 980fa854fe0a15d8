package ipc

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

const spliceBuffer = 64 << 10

// bufferPool lends buffers of spliceBuffer bytes.
type bufferPool struct{ sync.Pool }

func (p *bufferPool) get() *[]byte {
	if b, ok := p.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, spliceBuffer)
	return &b
}

// splice copies between a and b, each direction to its own end, until both have
// ended, one is reset or ctx ends, which resets both. It closes both. The error
// is that of the first reset.
func (s *Server) splice(ctx context.Context, a, b router.Conn) error {
	var once sync.Once
	var first error
	reset := func(err error) {
		once.Do(func() { first = err })
		code := api.CodeOf(err)
		a.Reset(code)
		b.Reset(code)
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		if err := cause(ctx); errors.Is(err, context.Canceled) {
			reset(api.Errorf(api.CodeCancelled, "the stream was cancelled"))
		} else {
			reset(err)
		}
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.pump(b, a); err != nil {
			reset(err)
		}
	})
	if err := s.pump(a, b); err != nil {
		reset(err)
	}
	wg.Wait()
	if !stop() {
		<-stopped
	}
	err := errors.Join(a.Close(), b.Close())
	once.Do(func() { first = err })
	return first
}

// pump copies from src to dst and ends dst's direction when src's has ended.
func (s *Server) pump(dst, src router.Conn) error {
	buf := s.buffers.get()
	defer s.buffers.Put(buf)
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			if _, err := dst.Write((*buf)[:n]); err != nil {
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
