package ipc

import (
	"container/list"
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// streamTable knows the streams that clients gave an id, by uid: those under way
// and, for ttl, how the latest others ended.
type streamTable struct {
	most int // ended ones kept for each uid
	ttl  time.Duration

	mu     sync.Mutex
	closed bool
	users  map[uint32]*userStreams
	timer  *time.Timer // sweeps; nil while nothing has ended
}

type userStreams struct {
	byID  map[string]*streamEntry
	ended *list.List // of *streamEntry, oldest first
}

type streamEntry struct {
	t     *streamTable
	uid   uint32
	id    string
	reset func(*api.Error)
	done  chan struct{} // closed when result is set

	result api.StreamResult
	at     time.Time
}

func (t *streamTable) init(most int, ttl time.Duration) {
	t.most, t.ttl = most, ttl
	t.users = make(map[uint32]*userStreams)
}

// add enters a stream that begins. conflict if the uid has used the id already.
func (t *streamTable) add(uid uint32, id string, reset func(*api.Error)) (*streamEntry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.users[uid]
	if u == nil {
		u = &userStreams{byID: make(map[string]*streamEntry), ended: list.New()}
		t.users[uid] = u
	}
	if u.byID[id] != nil {
		return nil, api.Errorf(api.CodeConflict, "a stream with this id exists already").
			WithHint("make a new UUID for each stream")
	}
	e := &streamEntry{t: t, uid: uid, id: id, reset: reset, done: make(chan struct{})}
	u.byID[id] = e
	return e, nil
}

func (t *streamTable) get(uid uint32, id string) *streamEntry {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u := t.users[uid]; u != nil {
		return u.byID[id]
	}
	return nil
}

// finish tells those who wait how the stream ended, and keeps it for ttl. A nil
// entry is none.
func (e *streamEntry) finish(result api.StreamResult) {
	if e == nil {
		return
	}
	t := e.t
	t.mu.Lock()
	defer t.mu.Unlock()
	e.result, e.at, e.reset = result, time.Now(), nil
	close(e.done)
	u := t.users[e.uid]
	u.ended.PushBack(e)
	for u.ended.Len() > t.most {
		u.removeOldest()
	}
	if t.timer == nil && !t.closed {
		t.timer = time.AfterFunc(t.ttl, t.sweep)
	}
}

// drop is finish for a stream that never was: its id is free again.
func (e *streamEntry) drop(err *api.Error) {
	if e == nil {
		return
	}
	t := e.t
	t.mu.Lock()
	defer t.mu.Unlock()
	e.result = api.StreamResult{Code: err.Code, Reason: err.Message}
	close(e.done)
	u := t.users[e.uid]
	delete(u.byID, e.id)
	t.forgetUser(e.uid)
}

func (u *userStreams) removeOldest() {
	e := u.ended.Remove(u.ended.Front()).(*streamEntry)
	delete(u.byID, e.id)
}

func (t *streamTable) forgetUser(uid uint32) {
	if u := t.users[uid]; u != nil && len(u.byID) == 0 {
		delete(t.users, uid)
	}
}

// sweep removes what is older than ttl and comes back for the rest.
func (t *streamTable) sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	var oldest time.Time
	for uid, u := range t.users {
		for u.ended.Len() > 0 {
			e := u.ended.Front().Value.(*streamEntry)
			if now.Sub(e.at) < t.ttl {
				if oldest.IsZero() || e.at.Before(oldest) {
					oldest = e.at
				}
				break
			}
			u.removeOldest()
		}
		t.forgetUser(uid)
	}
	t.timer = nil
	if !oldest.IsZero() && !t.closed {
		t.timer = time.AfterFunc(max(t.ttl-now.Sub(oldest), t.ttl/16), t.sweep)
	}
}

func (t *streamTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

func (c *conn) serveStream(r *api.Request, _ []*os.File) {
	o, err := c.open(r)
	if err != nil {
		c.respond(r, nil, err)
		return
	}
	c.wg.Go(func() { o.end(o.route()) })
}

func (o *opening) route() error {
	c := o.c
	if o.r.Stream != "" {
		e, err := c.s.streams.add(c.caller.UID, o.r.Stream, o.reset)
		if err != nil {
			return err
		}
		o.entry = e
	}
	limit := time.AfterFunc(o.r.Timeout(), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !o.accepted {
			o.cancel(api.Errorf(api.CodeTimeout, "the stream was not accepted within %v", o.r.Timeout()))
		}
	})
	defer limit.Stop()
	rr, err := c.routerRequest(o.ctx, o.r, router.Stream)
	if err != nil {
		return err
	}
	rr.Accept = o.accept
	_, err = c.s.backend.Route(o.ctx, rr)
	return err
}

func errNoStream() *api.Error {
	return api.Errorf(api.CodeNotFound, "no stream with this id").
		WithHint("how a stream ended can be asked for %d minutes", api.StreamResultTTL/time.Minute)
}

func (c *conn) serveStreamResult(r *api.Request, _ []*os.File) {
	e := c.s.streams.get(c.caller.UID, r.Stream)
	if e == nil {
		c.respond(r, nil, errNoStream())
		return
	}
	c.start(r, func(ctx context.Context) (json.RawMessage, error) {
		if r.TimeoutMS > 0 {
			limited, cancel := context.WithTimeout(ctx, r.Timeout())
			defer cancel()
			ctx = limited
		}
		select {
		case <-e.done:
			return marshal(e.result)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
}

func (c *conn) serveStreamReset(r *api.Request, _ []*os.File) {
	e := c.s.streams.get(c.caller.UID, r.Stream)
	if e == nil {
		c.respond(r, nil, errNoStream())
		return
	}
	if reset := e.resetFunc(); reset != nil {
		reset(api.Errorf(api.CodeAborted, "the client reset the stream"))
	}
	c.respond(r, json.RawMessage("{}"), nil)
}

// resetFunc is nil for a stream that has ended.
func (e *streamEntry) resetFunc() func(*api.Error) {
	e.t.mu.Lock()
	defer e.t.mu.Unlock()
	return e.reset
}
