package ipc

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// Serve is the listener as the router's handler.
func (l *listener) Serve(ctx context.Context, r *router.Request) (json.RawMessage, error) {
	if err := l.admit(ctx, r.From); err != nil {
		return nil, err
	}
	if r.Kind == router.Stream {
		return nil, l.serveStream(ctx, r)
	}
	defer l.leave(r.From)
	return l.serveCall(ctx, r)
}

// admit waits until the listener's "ok" is on its way, and counts the request as
// outstanding until leave. Half of the queue is for callers that have less than a
// quarter of it, so that none keeps the others out.
func (l *listener) admit(ctx context.Context, from identity.ID) error {
	select {
	case <-l.ready:
	case <-l.stopping:
		return l.errGone()
	case <-ctx.Done():
		return cause(ctx)
	}
	most := l.c.s.o.ListenerQueue
	l.mu.Lock()
	defer l.mu.Unlock()
	switch his := l.callers[from]; {
	case l.stopped:
		return l.errGone()
	case l.told >= most:
		return api.Errorf(api.CodeOverBudget, "the program that serves %s has not answered %d requests", l.protocol, l.told).
			WithHint("try again later")
	case l.told >= most/2 && his >= max(1, most/4):
		return api.Errorf(api.CodeOverBudget, "the program that serves %s has not answered %d requests of this caller", l.protocol, his).
			WithHint("wait until some of yours are answered")
	}
	l.told++
	l.callers[from]++
	return nil
}

func (l *listener) leave(from identity.ID) {
	l.mu.Lock()
	l.told--
	if l.callers[from]--; l.callers[from] == 0 {
		delete(l.callers, from)
	}
	last := l.stopped && l.told == 0
	l.mu.Unlock()
	if last { // as drain waits for
		l.end()
	}
}

func (l *listener) errGone() *api.Error {
	return api.Errorf(api.CodeProtocolUnavailable, "the program that served %s has ended, or is stopping", l.protocol)
}

// cause is why ctx ended, as an *api.Error where it is known.
func cause(ctx context.Context) error {
	if e, ok := errors.AsType[*api.Error](context.Cause(ctx)); ok {
		return e
	}
	return ctx.Err()
}

func (l *listener) serveCall(ctx context.Context, r *router.Request) (json.RawMessage, error) {
	id := api.NewUUID()
	answers := make(chan outcome, 1)
	l.mu.Lock()
	l.calls[id] = answers
	l.mu.Unlock()
	defer l.takeCall(id)
	if err := l.tell(r, id, false); err != nil {
		return nil, err
	}
	select {
	case out := <-answers:
		return out.from(r)
	case <-ctx.Done():
		if l.takeCall(id) != nil {
			// It may have ended or not read for long; then it need not know.
			_ = l.tell(r, id, true)
		}
		return nil, cause(ctx)
	case <-l.done:
		select {
		case out := <-answers:
			return out.from(r)
		default:
		}
		return nil, api.Errorf(api.CodeOutcomeUnknown, "the program that served %s ended before it answered", l.protocol)
	}
}

// tell queues the incoming line of r. It does not wait for a program that does
// not read.
func (l *listener) tell(r *router.Request, id string, cancelled bool) error {
	in := api.Incoming{Incoming: id, Kind: r.Kind.String(), Protocol: r.Protocol, Instance: r.Instance,
		To: r.To.String(), From: r.From.String(), MessageID: r.MessageID, Cancel: cancelled}
	in.Contact = l.c.s.backend.ContactName(r.To, r.From)
	line, err := marshal(in)
	if err != nil {
		return err
	}
	if len(r.Payload) > 0 && !cancelled {
		// By hand: encoding/json would rewrite the payload's text.
		line = append(line[:len(line)-1], `,"data":`...)
		line = append(append(line, r.Payload...), '}')
	}
	mustFlush, err := l.c.out.line(atOnce, l.id, api.StatusIncoming, line)
	switch {
	case errors.Is(err, errQueueFull):
		return api.Errorf(api.CodeOverBudget, "the program that serves %s does not read its requests", l.protocol).
			WithHint("try again later")
	case err != nil:
		return l.errGone()
	}
	if mustFlush {
		l.c.flushLater()
	}
	return nil
}

func (l *listener) serveStream(ctx context.Context, r *router.Request) error {
	o, err := l.offer(ctx, r)
	l.leave(r.From) // one that was accepted is outstanding no more
	if err != nil {
		return err
	}
	return l.splice(ctx, r, o)
}

// offer tells the program of a stream and waits for who accepts it.
func (l *listener) offer(ctx context.Context, r *router.Request) (*opening, error) {
	in := &incomingStream{uid: l.c.caller.UID, id: api.NewUUID(), claimed: make(chan *opening, 1)}
	table := &l.c.s.incoming
	table.add(in)
	if err := l.tell(r, in.id, false); err != nil {
		if table.withdraw(in) {
			return nil, err
		}
		return <-in.claimed, nil
	}
	wait := time.NewTimer(l.c.s.o.AcceptTimeout)
	defer wait.Stop()
	var err error
	cancelled := false
	select {
	case o := <-in.claimed:
		return o, nil
	case <-ctx.Done():
		err, cancelled = cause(ctx), true
	case <-l.stopping:
		err = l.errGone()
	case <-wait.C:
		err, cancelled = api.Errorf(api.CodeProtocolUnavailable, "the program that serves %s did not accept the stream within %v", l.protocol, l.c.s.o.AcceptTimeout), true
	}
	if !table.withdraw(in) {
		return <-in.claimed, nil
	}
	if cancelled {
		_ = l.tell(r, in.id, true) // as for a call
	}
	return nil, err
}

// splice joins the caller's stream to the connection that o makes raw.
func (l *listener) splice(ctx context.Context, r *router.Request, o *opening) (err error) {
	defer func() { o.over <- err }()
	// A caller who has gone need not wait until the program reads its answers.
	stop := context.AfterFunc(ctx, func() { o.reset(router.Ended(ctx)) })
	theirs, err := o.accept()
	stop()
	if err != nil {
		return api.Errorf(api.CodeProtocolUnavailable, "the program that serves %s did not take the stream", l.protocol)
	}
	ours, err := r.Accept()
	if err != nil {
		theirs.Reset(api.CodeOf(err))
		theirs.Close()
		return err
	}
	// Who accepted may abort, by stream.reset, while nobody reads or writes here.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(o.ctx, func() { cancel(context.Cause(o.ctx)) })()
	return router.Splice(ctx, ours, theirs)
}

// incomingStream waits for its uid to accept it.
type incomingStream struct {
	uid     uint32
	id      string
	claimed chan *opening
}

// incomingTable holds the incoming streams that wait, by id.
type incomingTable struct {
	mu   sync.Mutex
	byID map[string]*incomingStream
}

func (t *incomingTable) add(in *incomingStream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID == nil {
		t.byID = make(map[string]*incomingStream)
	}
	t.byID[in.id] = in
}

// withdraw takes back an incoming stream; false if somebody has claimed it, who
// then is in claimed.
func (t *incomingTable) withdraw(in *incomingStream) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	waits := t.byID[in.id] == in
	delete(t.byID, in.id)
	return waits
}

// claim hands o to the incoming stream; false if uid has none of that id.
func (t *incomingTable) claim(uid uint32, id string, o *opening) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	in := t.byID[id]
	if in == nil || in.uid != uid {
		return false
	}
	delete(t.byID, id)
	in.claimed <- o
	return true
}

func (c *conn) serveAccept(r *api.Request, _ []*os.File) {
	o, err := c.open(r)
	if err != nil {
		c.respond(r, nil, err)
		return
	}
	c.wg.Go(func() { o.end(o.claim()) })
}

// claim takes an incoming stream and waits until its handler is done with it.
func (o *opening) claim() error {
	c := o.c
	o.over = make(chan error, 1)
	e, err := c.s.streams.add(c.caller.UID, o.r.Incoming, o.reset)
	if err != nil {
		return errNoIncoming()
	}
	o.entry = e
	if !c.s.incoming.claim(c.caller.UID, o.r.Incoming, o) {
		return errNoIncoming()
	}
	return <-o.over
}

func errNoIncoming() *api.Error {
	return api.Errorf(api.CodeNotFound, "no incoming stream with this id waits").
		WithHint("accept each one once and in time; callers may have gone away")
}
