package ipc

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// opening is a stream or accept request from its line on, until its connection
// is given back to lines or is over.
type opening struct {
	c       *conn
	r       *api.Request
	release func()
	entry   *streamEntry // nil if nobody can ask for the stream's end
	ctx     context.Context
	cancel  context.CancelCauseFunc
	// parked is closed by the reader when it stands still; then it waits for
	// resume, which is sent to exactly once for each opening that was accepted.
	parked chan struct{}
	resume chan bool
	ended  chan struct{} // closed when the client ended its direction
	over   chan error    // of an accept: its handler is done

	// Under c.mu.
	accepted bool
	wanted   bool // the reader is to stand still
	conn     *streamConn
}

// open begins a stream or accept request, or refuses it. It runs on the reader.
func (c *conn) open(r *api.Request) (*opening, error) {
	c.mu.Lock()
	busy := len(c.flights) > 0 || c.opening != nil
	// An id is free before its answer is queued, which is no line of the stream's.
	for !busy && c.answers > 0 {
		c.queued.Wait()
	}
	c.mu.Unlock()
	if busy {
		return nil, api.Errorf(api.CodeBadRequest, "%q needs a connection with nothing else in flight", r.Type).
			WithHint("open a connection for each stream")
	}
	if c.in.buffered() > 0 {
		return nil, errEarlyBytes()
	}
	release, err := c.s.backend.Acquire(c.caller, BudgetStreams)
	if err != nil {
		return nil, err
	}
	o := &opening{c: c, r: r, release: release, parked: make(chan struct{}), resume: make(chan bool, 1), ended: make(chan struct{})}
	o.ctx, o.cancel = context.WithCancelCause(c.ctx)
	c.take(r.ID)
	c.mu.Lock()
	c.opening = o
	c.mu.Unlock()
	return o, nil
}

func errEarlyBytes() *api.Error {
	return api.Errorf(api.CodeBadRequest, `bytes came before "streaming" was answered`).
		WithHint(`send nothing behind a stream or accept request until its answer`)
}

// bytesArrived is called by the reader for all bytes that are not a stream's.
func (c *conn) bytesArrived() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opening != nil && c.opening.conn == nil {
		c.opening.cancel(errEarlyBytes())
	}
}

// accept answers "streaming" and makes the connection raw. Without success the
// connection stays one of lines.
func (o *opening) accept() (router.Conn, error) {
	if err := o.stopReader(); err != nil {
		o.letGo()
		return nil, err
	}
	sc := &streamConn{uc: o.c.uc, ended: o.ended}
	o.c.mu.Lock()
	o.conn = sc
	o.wanted = false
	o.c.setReadDeadline(time.Time{})
	o.c.mu.Unlock()
	if err := o.c.out.last(o.r.ID, api.StatusStreaming); err != nil {
		sc.Reset(api.CodeCancelled)
		return nil, errClientGone()
	}
	return sc, nil
}

// stopReader returns nil once the reader stands still and nothing was sent early.
func (o *opening) stopReader() error {
	c := o.c
	c.mu.Lock()
	if o.accepted {
		c.mu.Unlock()
		return errors.New("a stream was accepted twice")
	}
	o.accepted, o.wanted = true, true
	c.wake()
	c.mu.Unlock()
	select {
	case <-o.parked:
	case <-o.ctx.Done():
		return context.Cause(o.ctx)
	}
	if o.ctx.Err() != nil {
		return context.Cause(o.ctx)
	}
	if c.peek() {
		return errEarlyBytes()
	}
	return nil
}

// letGo makes the reader go on with lines.
func (o *opening) letGo() {
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	if o.conn != nil || !o.wanted {
		return
	}
	o.wanted = false
	o.resume <- true
}

// peek tells whether the client has sent bytes that were not read.
func (c *conn) peek() bool {
	raw, err := c.uc.SyscallConn()
	if err != nil {
		return false
	}
	found := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		found = err == nil && n > 0
	})
	return err == nil && found
}

// standStill is where the reader waits while the connection is raw, or about to
// be. It returns true if lines are to be read again.
func (o *opening) standStill() (goOn bool) {
	close(o.parked)
	select {
	case goOn = <-o.resume:
		return goOn
	case <-o.ended:
	}
	// The client has ended its direction. Once it is gone altogether nobody reads
	// what comes, so the stream gets only the time to deliver what was sent.
	if waitHangup(o.c.uc) == nil {
		grace := time.NewTimer(o.c.s.o.GoneGrace)
		defer grace.Stop()
		select {
		case goOn = <-o.resume:
			return goOn
		case <-grace.C:
			o.reset(errClientGone())
		}
	}
	return <-o.resume
}

// reset aborts the stream, accepted or not.
func (o *opening) reset(why *api.Error) {
	o.c.mu.Lock()
	sc := o.conn
	o.c.mu.Unlock()
	if sc != nil {
		sc.abort(why)
	}
	o.cancel(why)
}

// end is called once, when the handler is done with the stream or has refused it
// with err.
func (o *opening) end(err error) {
	c := o.c
	c.mu.Lock()
	sc := o.conn
	c.mu.Unlock()
	cause, _ := errors.AsType[*api.Error](context.Cause(o.ctx))
	o.cancel(nil)
	if sc != nil {
		result := sc.finish(err, cause)
		o.entry.finish(result)
		c.forget(o.r.ID)
		o.release()
		c.answered()
		o.resume <- false
		return
	}
	if cause != nil {
		err = cause // why the handler could not accept
	}
	if err == nil {
		err = api.Errorf(api.CodeProtocolUnavailable, "the stream was not accepted")
	}
	refusal := c.asError(o.r, err)
	o.entry.drop(refusal)
	c.mu.Lock()
	c.opening = nil
	c.mu.Unlock()
	c.finishFlight(o.r, nil, refusal, o.release)
}
