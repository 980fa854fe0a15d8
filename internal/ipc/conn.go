package ipc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/service/api"
)

// past is a deadline that wakes a reader at once.
var past = time.Unix(1, 0)

// sweepTime is how long a draining connection looks for requests that have
// already arrived, so that they are answered and not dropped.
const sweepTime = 5 * time.Millisecond

// conn is one connection. Its own goroutine reads; each request that may take
// time has a goroutine of its own, counted by wg.
//
//	lines ──stream, accept──▶ opening ──streaming──▶ raw ──▶ closed
//	  ▲─────── refused ──────────┘
type conn struct {
	s        *Server
	uc       *net.UnixConn
	caller   Caller // set before the first request
	in       lineReader
	out      writer
	ctx      context.Context
	cancel   context.CancelCauseFunc
	wg       sync.WaitGroup
	done     chan struct{}   // closed when run returns
	held     int             // bytes that the request being read counts; the reader's
	lastSend <-chan struct{} // closed when the send that was read last has its place; the reader's
	refused  int             // bytes of lines that were refused, and not yet paid for; the reader's

	mu         sync.Mutex
	admitted   bool
	half       bool // the client sends no more
	draining   bool // the server takes no more requests
	swept      bool
	finished   bool              // nothing new may be counted by wg
	flights    map[string]flight // ids in use; made for the first
	answers    int               // requests not answered yet
	queued     sync.Cond         // answers became 0
	longs      int               // listeners and subscriptions
	opening    *opening          // the stream or accept under way
	dismissing int               // daemon.disconnect requests in flight
	dismissed  *api.Error        // why one of them ends this connection
}

// flight is a request whose id is in use.
type flight struct {
	long ender
	held int // bytes that it counts of its user's
}

// ender is a listener or subscription: it goes on behind its answer. Neither method
// waits, and both may be called again.
type ender interface {
	end()
	drain() // takes nothing new, and ends once nothing is outstanding
}

// ending is how the reading of lines came to its end.
type ending uint8

const (
	gone     ending = iota // the client went away, or the connection is raw and over
	complete               // everything was answered
	broken                 // the client must be told before the connection ends
)

func newConn(s *Server, uc *net.UnixConn) *conn {
	c := &conn{s: s, uc: uc, done: make(chan struct{})}
	c.queued.L = &c.mu
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.in.conn, c.in.arrived = uc, c.bytesArrived
	c.in.bytes = c
	c.out.init(uc, s.o, c, func() { c.cut(nil) })
	return c
}

func (c *conn) run() {
	defer close(c.done)
	caller, release, err := c.s.backend.Admit(c.uc)
	if err != nil {
		c.refuse(caller, api.AsError(err))
		c.finish()
		return
	}
	defer release()
	defer c.finish()
	c.mu.Lock()
	c.caller, c.admitted = caller, true
	c.mu.Unlock()
	c.pay(caller.UID, connCost)
	switch c.readLines() {
	case complete:
		// Its error is that of a client that is gone.
		_ = c.out.idle()
	case broken:
		c.linger()
	}
}

// finish ends everything that the connection began, and waits for it.
func (c *conn) finish() {
	c.cut(nil)
	c.endLong()
	c.in.close()
	c.mu.Lock()
	c.finished = true
	c.mu.Unlock()
	c.wg.Wait()
	c.out.forget()
}

// flushLater is flush for those who must not wait for this client to read.
func (c *conn) flushLater() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.finished { // else nothing can be written any more
		c.wg.Go(c.out.flush)
	}
}

// cut ends the connection at once. A nil cause means that the client did it.
func (c *conn) cut(cause *api.Error) {
	if cause == nil {
		cause = errClientGone()
	}
	c.cancel(cause)
	c.out.close()
	c.uc.Close()
}

// cutFor is cut for a reason that both sides of a stream are told.
func (c *conn) cutFor(why *api.Error) {
	c.mu.Lock()
	var raw *streamConn
	if c.opening != nil {
		raw = c.opening.conn
	}
	c.mu.Unlock()
	if raw != nil {
		raw.abort(why) // before the close, which looks like the client's
	}
	c.cut(why)
}

// dismiss is cutFor, but a connection that asked for it gets its answer first.
func (c *conn) dismiss(why *api.Error) {
	c.mu.Lock()
	asked := c.dismissing > 0
	if asked {
		c.dismissed = why
	}
	c.mu.Unlock()
	if !asked {
		c.cutFor(why)
	}
}

func errClientGone() *api.Error {
	return api.Errorf(api.CodeCancelled, "the client went away")
}

func (c *conn) belongsTo(uid uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.admitted && c.caller.UID == uid && c.ctx.Err() == nil // else it is ending already
}

func (c *conn) isRaw() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opening != nil
}

// drain makes the connection answer what is in flight, take the replies to calls
// that it was told of, and end.
func (c *conn) drain() {
	c.mu.Lock()
	c.draining = true
	half := c.half
	c.wake()
	c.mu.Unlock()
	if half { // no reply can come
		c.endLong()
		return
	}
	for _, l := range c.longOnes() {
		l.drain()
	}
}

// wake makes the reader call woken. A raw connection has no lines to be woken
// from, and its deadline is the stream's. c.mu is held.
func (c *conn) wake() {
	if c.opening == nil || c.opening.conn == nil {
		c.setReadDeadline(past)
	}
}

func (c *conn) setReadDeadline(t time.Time) {
	// Fails only on a closed connection, whose reader needs no waking.
	_ = c.uc.SetReadDeadline(t)
}

func (c *conn) readLines() ending {
	for {
		line, files, err := c.in.next()
		switch {
		case err == nil:
			c.request(line, files)
			c.pause()
		case errors.Is(err, errLineTooLong):
			c.fail("", true, api.Errorf(api.CodeTooLarge, "a line is longer than %d bytes; the connection ends", api.MaxLine))
			c.refused += api.MaxLine
			c.pause()
			return broken
		case errors.Is(err, errNoRoom):
			c.fail(c.in.skipped.id, c.in.skipped.noID, c.in.skipped.why)
			c.refused += c.in.skipped.all
			c.pause()
		case errors.Is(err, os.ErrDeadlineExceeded):
			if goOn, how := c.woken(); !goOn {
				return how
			}
		case errors.Is(err, io.EOF):
			return c.halfClosed()
		default:
			return gone
		}
	}
}

// halfClosed serves a client that sends no more, as `nc -N` does: it gets its
// answers, until it closes or nothing more can come.
func (c *conn) halfClosed() ending {
	c.mu.Lock()
	c.half = true
	idle, draining := c.idle(), c.draining
	c.mu.Unlock()
	if idle {
		return complete
	}
	if draining { // as in drain
		c.endLong()
	}
	for {
		err := waitHangup(c.uc)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return gone
		}
		if goOn, how := c.woken(); !goOn {
			return how
		}
	}
}

// idle tells that nothing is in flight. c.mu is held.
func (c *conn) idle() bool { return c.answers == 0 && c.longs == 0 }

// woken is called when the read deadline has passed, which is how others stop the
// reader. It tells whether to go on reading, and if not, why.
func (c *conn) woken() (goOn bool, how ending) {
	c.mu.Lock()
	if o := c.opening; o != nil && o.wanted {
		c.mu.Unlock()
		return o.standStill(), gone
	}
	defer c.mu.Unlock()
	switch {
	case c.ctx.Err() != nil:
		return false, gone
	case c.idle() && c.half:
		return false, complete
	case c.idle() && c.draining && !c.swept:
		c.swept = true
		c.setReadDeadline(time.Now().Add(sweepTime))
	case c.idle() && c.draining:
		// The client's writes fail from now on, so that it knows that nothing was
		// done; what it wrote before is read and answered, then comes the end.
		_ = c.uc.CloseRead() // fails only if the client is gone
		c.setReadDeadline(time.Time{})
	default:
		c.setReadDeadline(time.Time{})
	}
	return true, gone
}

// refuse tells a client that it may not use the daemon. Few at a time are given
// the time to come and read it.
func (c *conn) refuse(caller Caller, e *api.Error) {
	if !c.s.lingering.take(caller.UID) {
		c.tell(e)
		return
	}
	defer c.s.lingering.give(caller.UID)
	c.pay(caller.UID, connCost)
	c.fail("", true, e)
	c.linger()
}

// tell writes e about the connection as a whole, if it can be done at once.
func (c *conn) tell(e *api.Error) {
	raw, err := c.uc.SyscallConn()
	if err != nil {
		return
	}
	line := api.AppendError(nil, "", true, e)
	// A socket just made has room, and one that is gone needs no line.
	_ = raw.Write(func(fd uintptr) bool {
		_ = unix.Sendto(int(fd), line, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		return true
	})
}

// linger tells a client that may still be sending what was wrong: to close with
// bytes unread would make its next write fail before it reads the error.
func (c *conn) linger() {
	deadline := time.Now().Add(c.s.o.LingerTimeout)
	// These fail only if the client is gone, and then nobody is to be told.
	_ = c.uc.SetWriteDeadline(deadline)
	_ = c.out.idle()
	c.out.close()
	_ = c.uc.CloseWrite()
	_ = c.uc.SetReadDeadline(deadline)
	_, _ = io.Copy(io.Discard, io.LimitReader(c.uc, 16*api.MaxLine))
}
