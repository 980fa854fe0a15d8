// Package routertest holds streams made in memory, for tests.
package routertest

import (
	"io"
	"slices"
	"sync"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// Window is how many bytes of one direction are written before somebody reads.
const Window = 64 << 10

// Pipe returns the two ends of one stream. A Write blocks while Window bytes of
// its direction are unread. Like a stream between nodes, an end that is reset
// fails on both sides with the code of the first Reset, even with bytes unread.
func Pipe() (a, b *Conn) {
	p := &pipe{}
	p.changed.L = &p.mu
	return &Conn{p: p, out: &p.ways[0], in: &p.ways[1]}, &Conn{p: p, out: &p.ways[1], in: &p.ways[0]}
}

// Conn is one end. It counts what is done to it, for tests to look at.
type Conn struct {
	p       *pipe
	out, in *way

	closes int // guarded by p.mu
	resets []api.Code
}

var _ router.Conn = (*Conn)(nil)

type pipe struct {
	mu      sync.Mutex
	changed sync.Cond // any field of pipe or of its ends
	ways    [2]way
	reset   *api.Error // of the whole stream
}

// way is one direction.
type way struct {
	unread []byte
	ended  bool // no more will be written
}

// Read waits for bytes. It is io.EOF after the other side's CloseWrite.
func (c *Conn) Read(b []byte) (int, error) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	for {
		switch {
		case c.closes > 0:
			return 0, api.Errorf(api.CodeAborted, "read of a closed stream")
		case c.p.reset != nil:
			return 0, c.p.reset
		case len(c.in.unread) > 0 && len(b) > 0:
			n := copy(b, c.in.unread)
			c.in.unread = c.in.unread[n:]
			c.p.changed.Broadcast()
			return n, nil
		case len(b) == 0:
			return 0, nil
		case c.in.ended:
			return 0, io.EOF
		}
		c.p.changed.Wait()
	}
}

// Write returns when all of b is within the window.
func (c *Conn) Write(b []byte) (n int, err error) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	for {
		switch {
		case c.closes > 0:
			return n, api.Errorf(api.CodeAborted, "write to a closed stream")
		case c.p.reset != nil:
			return n, c.p.reset
		case c.out.ended:
			return n, api.Errorf(api.CodeAborted, "write after CloseWrite")
		}
		room := min(Window-len(c.out.unread), len(b)-n)
		if room > 0 {
			c.out.unread = append(c.out.unread, b[n:n+room]...)
			n += room
			c.p.changed.Broadcast()
		}
		if n == len(b) {
			return n, nil
		}
		c.p.changed.Wait()
	}
}

// CloseWrite ends this side's direction.
func (c *Conn) CloseWrite() error {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.p.reset != nil {
		return c.p.reset
	}
	c.out.ended = true
	c.p.changed.Broadcast()
	return nil
}

// Reset ends both directions at both sides.
func (c *Conn) Reset(code api.Code) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.resets = append(c.resets, code)
	c.resetLocked(code)
}

func (c *Conn) resetLocked(code api.Code) {
	over := c.in.ended && c.out.ended && len(c.in.unread) == 0
	if c.closes > 0 || c.p.reset != nil || over {
		return
	}
	c.p.reset = api.Errorf(code, "the stream was reset: %s", code)
	c.p.changed.Broadcast()
}

// Close releases the stream; before both ends are done it is a reset.
func (c *Conn) Close() error {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.resetLocked(api.CodeAborted)
	c.closes++
	c.p.changed.Broadcast()
	return nil
}

// Closes tells how often Close was called.
func (c *Conn) Closes() int {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	return c.closes
}

// Resets returns the codes that Reset was called with here, in order, whether
// or not they still had an effect.
func (c *Conn) Resets() []api.Code {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	return slices.Clone(c.resets)
}
