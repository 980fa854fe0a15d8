package p2p

import (
	"bufio"
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// rawStream is a router.Conn over a stream of its own.
type rawStream struct {
	s     network.Stream
	key   streamKey
	owner *rawStreams

	aborted context.Context // ends when the peer tells that it aborted
	abort   context.CancelCauseFunc

	rmu      sync.Mutex    // one Read, or one look whether data waits
	head     *bufio.Reader // may hold the first bytes; nil once it is empty
	lastRead atomic.Int64  // when a Read last ended, or the stream began, Unix nanoseconds

	readEnded  atomic.Bool // io.EOF was read
	writeEnded atomic.Bool // CloseWrite was called
	reset      atomic.Pointer[api.Error]
	over       sync.Once
}

var _ router.Abortable = (*rawStream)(nil)

// newRawStream takes over s; head holds what was read of it already.
func newRawStream(s network.Stream, key streamKey, head *bufio.Reader, owner *rawStreams) *rawStream {
	c := &rawStream{s: s, key: key, head: head, owner: owner}
	c.aborted, c.abort = context.WithCancelCause(context.Background())
	c.lastRead.Store(time.Now().UnixNano())
	owner.add(c)
	return c
}

func (c *rawStream) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	n, err := c.read(p)
	c.lastRead.Store(time.Now().UnixNano())
	return n, err
}

func (c *rawStream) read(p []byte) (int, error) {
	if c.head != nil {
		if c.head.Buffered() > 0 {
			return c.head.Read(p)
		}
		c.head = nil
	}
	if c.readEnded.Load() {
		return 0, io.EOF
	}
	n, err := c.s.Read(p)
	if err == io.EOF {
		c.readEnded.Store(true)
		c.settle()
	}
	return n, c.wrap(err)
}

func (c *rawStream) Write(p []byte) (int, error) {
	n, err := c.s.Write(p)
	if err == nil {
		return n, nil
	}
	if c.writeEnded.Load() && c.reset.Load() == nil {
		return n, api.Errorf(api.CodeBadRequest, "the stream was written to after its end")
	}
	return n, c.wrap(err)
}

// wrap prefers the reason this side gave for a reset to what libp2p says.
func (c *rawStream) wrap(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if e := c.reset.Load(); e != nil {
		return e
	}
	return c.owner.conn.streamError(err)
}

func (c *rawStream) CloseWrite() error {
	if c.writeEnded.Swap(true) {
		return nil
	}
	if err := c.s.CloseWrite(); err != nil {
		return c.wrap(err)
	}
	c.settle()
	return nil
}

func (c *rawStream) Reset(code api.Code) {
	if code == "" {
		code = api.CodeAborted
	}
	e := api.Errorf(code, "the stream was reset by this side: %s", codeText(code))
	if c.reset.CompareAndSwap(nil, e) {
		c.finish(func() {
			_ = c.s.ResetWithError(toResetCode(code))
			if c.writeEnded.Load() {
				c.owner.conn.tellAborted(c.key, code)
			}
		})
	}
}

// Aborted implements router.Abortable.
func (c *rawStream) Aborted() context.Context { return c.aborted }

func (c *rawStream) Close() error {
	if c.readEnded.Load() && c.writeEnded.Load() {
		c.finish(func() { _ = c.s.Close() })
		return nil
	}
	c.Reset(api.CodeAborted)
	return nil
}

// settle releases the stream as soon as both directions have ended.
func (c *rawStream) settle() {
	if c.readEnded.Load() && c.writeEnded.Load() {
		c.finish(func() { _ = c.s.Close() })
	}
}

func (c *rawStream) finish(f func()) {
	c.over.Do(func() {
		f()
		c.owner.remove(c)
	})
}
