package ipc

import (
	"context"
	"encoding/json"
	"os"
	"sync"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// listener is a program that serves a protocol: the router's handler that tells
// its requests to the connection which said listen, and waits for the answers.
type listener struct {
	c                  *conn
	id                 string // of the listen request
	owner              identity.ID
	protocol, instance string
	ready              chan struct{} // closed once "ok" is queued: nothing is told before
	stopping           chan struct{} // closed when it takes nothing new
	done               chan struct{} // closed when it has ended
	stopOnce, endOnce  sync.Once
	unregister         func()
	release            func()

	mu      sync.Mutex
	stopped bool                    // stopping is closed
	told    int                     // incoming ones that are outstanding
	callers map[identity.ID]int     // the same by who sent them
	calls   map[string]chan outcome // by incoming id
}

// outcome is a program's answer to a call.
type outcome struct {
	data json.RawMessage
	err  *api.Error
}

// from is o as the caller of r gets it: an error is the words of who was asked.
func (o outcome) from(r *router.Request) (json.RawMessage, error) {
	if o.err == nil {
		return o.data, nil
	}
	o.err.Peer = r.To.String()
	return nil, o.err
}

func (c *conn) serveListen(r *api.Request, _ []*os.File) {
	kinds, err := listenKinds(r.Data)
	if err != nil {
		c.respond(r, nil, err)
		return
	}
	release, ok := c.begin(r)
	if !ok {
		return
	}
	c.wg.Go(func() {
		if err := c.listen(r, kinds, release); err != nil {
			c.finishFlight(r, nil, err, release)
		}
	})
}

func listenKinds(data json.RawMessage) ([]router.Kind, error) {
	var args api.ListenArgs
	if err := api.DecodeArgs(data, &args); err != nil {
		return nil, err
	}
	if args.Kinds != nil && len(args.Kinds) == 0 {
		return nil, api.Errorf(api.CodeBadRequest, `"data": "kinds" is empty: nothing would be taken`).
			WithHint(`leave it out for "call" and "stream"`)
	}
	if len(args.Kinds) == 0 {
		return []router.Kind{router.Call, router.Stream}, nil
	}
	var kinds []router.Kind
	for _, k := range args.Kinds {
		switch k {
		case router.Call.String():
			kinds = append(kinds, router.Call)
		case router.Stream.String():
			kinds = append(kinds, router.Stream)
		case router.Message.String():
			kinds = append(kinds, router.Message)
		default:
			return nil, api.Errorf(api.CodeBadRequest, `"data": kind %q is none of "call", "stream" and "message"`, k)
		}
	}
	return kinds, nil
}

// listen registers a listener, which then owns release; with an error the caller does.
func (c *conn) listen(r *api.Request, kinds []router.Kind, release func()) error {
	owner, err := c.own(c.ctx, r)
	if err != nil {
		return err
	}
	l := &listener{c: c, id: r.ID, owner: owner, protocol: r.Protocol, instance: api.Instance(r.Instance), release: release,
		ready: make(chan struct{}), stopping: make(chan struct{}), done: make(chan struct{}),
		callers: make(map[identity.ID]int), calls: make(map[string]chan outcome)}
	l.unregister, err = c.s.backend.Listen(c.caller, owner, l.protocol, l.instance, kinds, l)
	if err != nil {
		return err
	}
	if !c.lengthen(r.ID, l) {
		l.unregister()
		close(l.done)
		return errStopping()
	}
	mustFlush := c.queue(r, json.RawMessage("{}"), nil)
	close(l.ready)
	c.answered()
	if mustFlush {
		c.out.flush()
	}
	return nil
}

// end ends the registration and what waits for the program's answers. Streams
// that it accepted go on.
func (l *listener) end() {
	l.stop()
	l.endOnce.Do(func() {
		close(l.done)
		l.c.forget(l.id)
		l.release()
	})
}

// stop refuses what comes from now on, and streams that wait for accept.
func (l *listener) stop() {
	l.stopOnce.Do(func() {
		l.unregister()
		l.mu.Lock()
		l.stopped = true
		l.mu.Unlock()
		close(l.stopping)
	})
}

// drain leaves the program the time to reply to the calls that it was told of.
func (l *listener) drain() {
	l.stop()
	l.mu.Lock()
	idle := l.told == 0
	l.mu.Unlock()
	if idle {
		l.end()
	}
}

func (c *conn) endListeners(owner identity.ID) {
	ended := false
	for _, long := range c.longOnes() {
		if l, ok := long.(*listener); ok && l.owner == owner {
			l.end()
			ended = true
		}
	}
	c.mu.Lock()
	idle := c.answers == 0 && len(c.flights) == 0
	c.mu.Unlock()
	if ended && idle {
		c.cutFor(api.Errorf(api.CodeNotFound, "the identity was removed"))
	}
}

func (c *conn) serveUnlisten(r *api.Request, _ []*os.File) {
	c.start(r, func(ctx context.Context) (json.RawMessage, error) {
		owner, err := c.own(ctx, r)
		if err != nil {
			return nil, err
		}
		l := c.findListener(func(l *listener) bool {
			return l.owner == owner && l.protocol == r.Protocol && l.instance == api.Instance(r.Instance)
		})
		if l == nil {
			return nil, api.Errorf(api.CodeNotFound, "this connection does not listen for %s, instance %s", r.Protocol, api.Instance(r.Instance))
		}
		l.end()
		return json.RawMessage("{}"), nil
	})
}

func (c *conn) findListener(match func(*listener) bool) *listener {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.flights {
		if l, ok := f.long.(*listener); ok && match(l) {
			return l
		}
	}
	return nil
}

func (c *conn) serveReply(r *api.Request, _ []*os.File) {
	out := outcome{data: r.Data}
	if r.Error != nil {
		if len(r.Data) > 0 {
			c.respond(r, nil, api.Errorf(api.CodeBadRequest, `"reply" has "data" or "error", not both`))
			return
		}
		e, err := replyError(r.Error)
		if err != nil {
			c.respond(r, nil, err)
			return
		}
		out.err = e
	}
	answers := c.takeCall(r.Incoming)
	if answers == nil {
		c.respond(r, nil, api.Errorf(api.CodeNotFound, "no call with this id waits on this connection").
			WithHint("reply once, on the connection that was told of the call; callers may have gone away"))
		return
	}
	answers <- out
	c.respond(r, json.RawMessage("{}"), nil)
}

// maxReplyText bounds the message and hint of a program's error, in bytes: they
// travel in a frame's header.
const maxReplyText = 1 << 10

// replyError makes a program's error one that its caller may get: a program does
// not speak for the daemon or the network.
func replyError(e *api.Error) (*api.Error, error) {
	switch e.Code {
	case api.CodeHandlerFailed, api.CodeBadRequest, api.CodeNotFound, api.CodeConflict, api.CodeTooLarge, api.CodeUnsupported:
	case "":
		e.Code = api.CodeHandlerFailed
	default:
		return nil, api.Errorf(api.CodeBadRequest, `"error": a program may not answer with code %q`, api.Shorten(string(e.Code))).
			WithHint("use handler_failed, bad_request, not_found, conflict, too_large or unsupported")
	}
	if e.Message == "" {
		return nil, api.Errorf(api.CodeBadRequest, `"error" needs "message"`)
	}
	if len(e.Message) > maxReplyText || len(e.Hint) > maxReplyText {
		return nil, api.Errorf(api.CodeBadRequest, `"error": message and hint may have %d bytes each`, maxReplyText)
	}
	return e, nil
}

// takeCall finds who waits for the reply to an incoming call, and forgets the call.
func (c *conn) takeCall(incoming string) chan<- outcome {
	var found chan<- outcome
	c.findListener(func(l *listener) bool {
		found = l.takeCall(incoming)
		return found != nil
	})
	return found
}

func (l *listener) takeCall(incoming string) chan<- outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	answers := l.calls[incoming]
	delete(l.calls, incoming)
	if answers == nil {
		return nil // a nil chan of the other direction
	}
	return answers
}
