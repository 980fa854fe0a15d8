package ipc

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/fastn-stack/fastnd/service/api"
)

// take marks id as in use by the request that was read last and will be answered.
// It runs on the reading goroutine.
func (c *conn) take(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights == nil {
		c.flights = make(map[string]flight)
	}
	c.flights[id] = flight{held: c.held}
	c.held = 0
	c.answers++
}

// lengthen keeps id in use behind its answer, until forget. It returns false if
// the connection takes no more.
func (c *conn) lengthen(id string, l ender) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil || c.draining {
		return false
	}
	f := c.flights[id]
	f.long = l
	c.flights[id] = f
	c.longs++
	return true
}

// inUse tells whether a request with this id is in flight.
func (c *conn) inUse(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.flights[id]
	return ok
}

// forget makes id free again.
func (c *conn) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.flights[id]
	delete(c.flights, id)
	c.giveBytes(f.held)
	if ok && f.long != nil {
		c.longs--
		c.settled()
	}
}

// answered is called once for each request that was taken, when its answer is
// queued or never will be.
func (c *conn) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers--; c.answers == 0 {
		c.queued.Broadcast()
	}
	c.settled()
}

// settled wakes a reader that waits for the last answer. c.mu is held.
func (c *conn) settled() {
	if c.idle() && (c.draining || c.half) {
		c.wake()
	}
}

// endLong ends listeners and subscriptions.
func (c *conn) endLong() {
	for _, l := range c.longOnes() {
		l.end()
	}
}

func (c *conn) longOnes() []ender {
	c.mu.Lock()
	defer c.mu.Unlock()
	var longs []ender
	for _, f := range c.flights {
		if f.long != nil {
			longs = append(longs, f.long)
		}
	}
	return longs
}

// begin counts r as a request in flight, until release; false if there is no place
// for it, which is its answer.
func (c *conn) begin(r *api.Request) (release func(), ok bool) {
	release, err := c.s.backend.Acquire(c.caller, BudgetRequests)
	if err != nil {
		c.respond(r, nil, err)
		return nil, false
	}
	c.take(r.ID)
	return release, true
}

// start does work aside, counted as one request in flight, and answers r with what
// it returns.
func (c *conn) start(r *api.Request, work func(ctx context.Context) (json.RawMessage, error)) {
	release, ok := c.begin(r)
	if !ok {
		return
	}
	c.aside(func() {
		data, err := work(c.ctx)
		c.finishFlight(r, data, err, release)
	})
}

// aside does the work of a request on another goroutine, counted by wg.
func (c *conn) aside(work func()) {
	c.wg.Add(1)
	c.s.crew.Go(func() {
		defer c.wg.Done()
		work()
	})
}

// finishFlight answers r, frees its id and its place in the budget.
func (c *conn) finishFlight(r *api.Request, data json.RawMessage, err error, release func()) {
	// Before the answer can be read: the client may use the id again at once.
	c.forget(r.ID)
	mustFlush := c.queue(r, data, err)
	release()
	c.answered()
	if mustFlush {
		c.out.flush()
	}
}

// queue queues the answer to r.
func (c *conn) queue(r *api.Request, data json.RawMessage, err error) (mustFlush bool) {
	if most := mostData(r); err == nil && len(data) > most {
		err = api.Errorf(api.CodeTooLarge, "the answer has %d bytes, the limit is %d", len(data), most)
	}
	// Errors of writing end the connection where they happen.
	if err != nil {
		mustFlush, _ = c.out.fail(r.ID, false, c.asError(r, err))
		return mustFlush
	}
	mustFlush, err = c.out.line(answer, r.ID, api.StatusOK, data)
	if e, ok := errors.AsType[*api.Error](err); ok { // no room for it
		mustFlush, _ = c.out.fail(r.ID, false, answerDropped(e, len(data)))
	}
	return mustFlush
}

// mostData bounds the data of r's answer. A call's is a payload, the same from here
// as from far; what a verb puts around a payload has the rest of the line.
func mostData(r *api.Request) int {
	if r.Type == api.TypeCall {
		return api.MaxPayload
	}
	return api.MaxLine - len(api.AppendAnswer(nil, r.ID, api.StatusOK, nil)) - len(`,"data":`)
}

// respond answers r, which was not taken, with data or err.
func (c *conn) respond(r *api.Request, data json.RawMessage, err error) {
	if c.queue(r, data, err) {
		c.out.flush()
	}
}

// fail answers a line that is no request.
func (c *conn) fail(id string, noID bool, e *api.Error) {
	// Errors of writing end the connection where they happen.
	if mustFlush, _ := c.out.fail(id, noID, e); mustFlush {
		c.out.flush()
	}
}

// asError makes err one for the client, and logs what is a defect here.
func (c *conn) asError(r *api.Request, err error) *api.Error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.CodeTimeout, "no answer within %v", r.Timeout())
	case errors.Is(err, context.Canceled):
		if e, ok := errors.AsType[*api.Error](context.Cause(c.ctx)); ok {
			return e
		}
		return api.Errorf(api.CodeCancelled, "the request was cancelled")
	}
	c.s.log.Error("a request of a local client failed", "type", r.Type, "uid", c.caller.UID, "error", err)
	return api.AsError(err)
}
