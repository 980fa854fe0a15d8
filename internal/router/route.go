package router

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// Residence tells which identities live on this node.
type Residence interface {
	// Here tells whether id lives on this node, and whether it is served now.
	Here(id identity.ID) (here, online bool)
	// Owner tells whose identity of this node id is.
	Owner(id identity.ID) (uid uint32, ok bool)
}

// Access decides who may do what.
type Access interface {
	// Incoming returns nil if from may use the protocol of owner, else the
	// error that from is told.
	Incoming(owner, from identity.ID, protocol, instance string) error
	// Outgoing returns nil if owner may call to.
	Outgoing(owner, to identity.ID) error
}

// Budget bounds what a remote identity may have in flight.
type Budget interface {
	// AcquirePeer takes one place for a request or stream of from to owner;
	// release gives it back and may be called more than once.
	AcquirePeer(owner, from identity.ID, kind Kind) (release func(), err error)
}

// Parts are what a Router stands on; all are needed.
type Parts struct {
	Residence Residence
	Access    Access
	Budget    Budget
	Builtin   map[string]Handler // by protocol
	Remote    Handler            // another node
}

// Router sends each request to its one handler. It is safe for concurrent use.
type Router struct {
	parts     Parts
	here      Inbox
	elsewhere Mailbox

	mu        sync.RWMutex
	listeners map[serviceKey]*listener

	openMu sync.Mutex
	open   map[*openRequest]struct{}
}

type serviceKey struct {
	owner              identity.ID
	protocol, instance string
}

type listener struct {
	uid     uint32 // the user whose program it is
	handler Handler
	kinds   []Kind
}

type openRequest struct {
	r      *Request
	cancel context.CancelCauseFunc
}

// New returns a Router over parts.
func New(parts Parts) *Router {
	return &Router{
		parts:     parts,
		listeners: make(map[serviceKey]*listener),
		open:      make(map[*openRequest]struct{}),
	}
}

// Route passes r through access and to its handler, and returns when r is
// over. Errors are *api.Error.
func (rt *Router) Route(ctx context.Context, r *Request) (json.RawMessage, error) {
	r.Instance = api.Instance(r.Instance)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Entered before access is asked: a Recheck that does not find it yet was
	// called after a commit that access will see.
	o := &openRequest{r: r, cancel: cancel}
	rt.enter(o)
	defer rt.leave(o)
	here, online := rt.parts.Residence.Here(r.To)
	handler, far, err := rt.pick(r, here, online)
	if err != nil {
		return nil, err
	}
	if !r.Local() {
		release, err := rt.parts.Budget.AcquirePeer(r.To, r.From, r.Kind)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	if far {
		handler = rt.parts.Remote
	}
	if r.Accept != nil {
		return nil, serveStream(ctx, handler, r)
	}
	return serve(ctx, handler, r)
}

// pick returns who serves r here, or that another node is to be asked.
func (rt *Router) pick(r *Request, here, online bool) (h Handler, far bool, err error) {
	if here {
		err := rt.parts.Access.Incoming(r.To, r.From, r.Protocol, r.Instance)
		switch {
		case err == nil && !online:
			return nil, false, api.Errorf(api.CodeOffline, "the identity is offline").
				WithHint("its owner can serve it again with fastn id online NAME")
		case err == nil:
			h, err := rt.handler(r)
			return h, false, err
		case !r.Local() || !api.IsRefusal(err):
			return nil, false, err
		}
		// To a stranger on this machine the identity is not here: what follows is
		// what happens with one of which nothing is known.
	}
	if !r.Local() { // a node never forwards for another
		return nil, false, api.Refusal()
	}
	return nil, true, rt.parts.Access.Outgoing(r.From, r.To)
}

// handler returns who serves r here; for a Message that its Inbox does.
func (rt *Router) handler(r *Request) (Handler, error) {
	l := rt.listener(serviceKey{r.To, r.Protocol, r.Instance})
	if l != nil && slices.Contains(l.kinds, r.Kind) {
		return l.handler, nil
	}
	if r.Kind == Message {
		if rt.here.TakesBuiltin(r.Protocol, r.Instance) {
			return nil, nil
		}
		if rt.parts.Builtin[r.Protocol] != nil && r.Instance == api.DefaultInstance {
			return nil, api.Errorf(api.CodeBadRequest, "%s answers calls and takes no messages", r.Protocol)
		}
	} else if h := rt.parts.Builtin[r.Protocol]; h != nil && r.Instance == api.DefaultInstance {
		return h, nil
	}
	what := api.ServiceName(r.Protocol, r.Instance)
	if l != nil {
		what = fmt.Sprintf("%s as a %s", what, r.Kind)
	}
	return nil, api.Errorf(api.CodeProtocolUnavailable, "nobody serves %s there now", what).
		WithHint("its owner serves a protocol of his own with %s", api.ListenCommand(r.Protocol, r.Instance))
}

// listener returns who serves key, nil if nobody does. The program of a user
// who owned the identity before serves it no more.
func (rt *Router) listener(key serviceKey) *listener {
	rt.mu.RLock()
	l := rt.listeners[key]
	rt.mu.RUnlock()
	if l == nil {
		return nil
	}
	if uid, ok := rt.parts.Residence.Owner(key.owner); !ok || uid != l.uid {
		return nil
	}
	return l
}

// enter makes o one of those that Recheck looks at, until leave is called.
func (rt *Router) enter(o *openRequest) {
	rt.openMu.Lock()
	defer rt.openMu.Unlock()
	rt.open[o] = struct{}{}
}

func (rt *Router) leave(o *openRequest) {
	rt.openMu.Lock()
	defer rt.openMu.Unlock()
	delete(rt.open, o)
}

// serve runs the handler.
func serve(ctx context.Context, h Handler, r *Request) (json.RawMessage, error) {
	if ctx.Err() != nil {
		return nil, Ended(ctx)
	}
	data, err := h.Serve(ctx, r)
	if err == nil {
		return data, nil
	}
	if ctx.Err() != nil {
		err = Ended(ctx)
	}
	return nil, err
}

// serveStream is serve for a stream, which is reset when ctx ends, as it does when
// access is withdrawn.
func serveStream(ctx context.Context, h Handler, r *Request) error {
	var conn Conn
	unwatch := func() {}
	accept := r.Accept
	r.Accept = func() (Conn, error) {
		if ctx.Err() != nil {
			return nil, Ended(ctx)
		}
		c, err := accept()
		if err != nil {
			return nil, err
		}
		conn, unwatch = c, resetAtEnd(ctx, c)
		return c, nil
	}
	_, err := serve(ctx, h, r)
	unwatch()
	if err != nil && conn != nil {
		conn.Reset(streamCode(err))
	}
	return err
}

// resetAtEnd resets c when ctx ends, so that a handler blocked in Read or Write
// of c ends too. After stop it does not, nor is it still at it.
func resetAtEnd(ctx context.Context, c Conn) (stop func()) {
	return atEnd(ctx, func() { c.Reset(streamCode(Ended(ctx))) })
}

// atEnd calls f when ctx ends. After stop it does not, nor is f still running.
func atEnd(ctx context.Context, f func()) (stop func()) {
	done := make(chan struct{})
	end := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() {
		if !end() {
			<-done
		}
	}
}

// Ended turns the end of ctx into the error that tells why it ended.
func Ended(ctx context.Context) *api.Error {
	cause := context.Cause(ctx)
	switch {
	case cause == nil, cause == context.Canceled:
		return api.Errorf(api.CodeCancelled, "the caller went away")
	case cause == context.DeadlineExceeded:
		return NoAnswer()
	}
	return api.AsError(cause)
}

// NoAnswer is the error of a request whose time has passed.
func NoAnswer() *api.Error {
	return api.Errorf(api.CodeTimeout, "no answer in the time allowed").
		WithHint(`allow more with timeout_ms, or see whether the peer is there with "fastn ping TARGET"`)
}

// Listen makes h, of a program of uid, the handler of a protocol of owner until
// unregister is called. It is a conflict if another program serves it already,
// or if every node does.
func (rt *Router) Listen(uid uint32, owner identity.ID, protocol, instance string, kinds []Kind, h Handler) (unregister func(), err error) {
	instance = api.Instance(instance)
	if rt.parts.Builtin[protocol] != nil && instance == api.DefaultInstance {
		return nil, api.Errorf(api.CodeConflict, "%s is built in", protocol).
			WithHint("choose another name for the protocol, or listen with an instance")
	}
	key := serviceKey{owner, protocol, instance}
	if rt.listener(key) != nil {
		return nil, takenError(protocol, instance)
	}
	l := &listener{uid: uid, handler: h, kinds: kinds}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if other := rt.listeners[key]; other != nil && other.uid == uid {
		return nil, takenError(protocol, instance)
	}
	rt.listeners[key] = l
	var once sync.Once
	return func() {
		once.Do(func() {
			rt.mu.Lock()
			defer rt.mu.Unlock()
			if rt.listeners[key] == l {
				delete(rt.listeners, key)
			}
		})
	}, nil
}

func takenError(protocol, instance string) error {
	return api.Errorf(api.CodeConflict, "another program listens for %s (instance %s) already", protocol, instance).
		WithHint("end that program, or listen with another instance")
}

// Forget ends every registration of owner, which is an identity of this node no
// more: should it come back as another user's, the old programs get nothing.
func (rt *Router) Forget(owner identity.ID) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	maps.DeleteFunc(rt.listeners, func(k serviceKey, _ *listener) bool { return k.owner == owner })
}

// Listening returns the protocols that programs serve for owner now, sorted.
func (rt *Router) Listening(owner identity.ID) []string {
	rt.mu.RLock()
	defer rt.mu.RUnlock()
	var out []string
	uid, ok := rt.parts.Residence.Owner(owner)
	for k, l := range rt.listeners {
		if k.owner == owner && ok && l.uid == uid {
			out = append(out, k.protocol)
		}
	}
	slices.Sort(out) // one protocol may have several instances
	return slices.Compact(out)
}

// Recheck asks access again about everything open between owner and who, in
// either direction (any who if zero), and ends what is no longer allowed. It is
// called after a block, a removal or a revocation was committed; owner is, or
// was until then, an identity of this node.
// cut ends what goes from owner to who as well, allowed or not.
func (rt *Router) Recheck(owner, who identity.ID, cut bool) {
	is := func(id identity.ID) bool { return who.IsZero() || id == who }
	rt.openMu.Lock()
	var asked []*openRequest
	for o := range rt.open {
		if o.r.To == owner && is(o.r.From) || o.r.From == owner && is(o.r.To) {
			asked = append(asked, o)
		}
	}
	rt.openMu.Unlock()
	for _, o := range asked {
		if err := rt.stillAllowed(o.r, owner, cut); err != nil {
			o.cancel(err)
		}
	}
}

func (rt *Router) stillAllowed(r *Request, owner identity.ID, cut bool) error {
	if cut && r.From == owner && r.To != owner {
		return api.Errorf(api.CodeNotPermitted, "ended: this side withdrew")
	}
	here, online := rt.parts.Residence.Here(r.To)
	if !here {
		if r.To == owner || !r.Local() { // it was here when this began
			return api.Refusal()
		}
		return rt.parts.Access.Outgoing(r.From, r.To)
	}
	if err := rt.parts.Access.Incoming(r.To, r.From, r.Protocol, r.Instance); err != nil {
		return err
	}
	if !online {
		return api.Errorf(api.CodeOffline, "the identity went offline")
	}
	return nil
}
