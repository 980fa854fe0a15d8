package router_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/router/routertest"
	"github.com/fastn-stack/fastnd/service/api"
)

// The identities of these tests. alice and bob live here, carol on carolNode.
var (
	alice, bob, carol, nobody = identity.ID{1}, identity.ID{2}, identity.ID{3}, identity.ID{4}
	carolNode                 = identity.ID{9}
)

// world is all that a Router stands on. steps records in which order its parts
// were asked.
type world struct {
	rt *router.Router

	mu       sync.Mutex
	steps    []string
	online   map[identity.ID]bool // those that live here
	owner    map[identity.ID]uint32
	incoming func(owner, from identity.ID, protocol, instance string) error
	outgoing func(owner, to identity.ID) error
	budget   error
	taken    int
	given    int
}

func newWorld() *world {
	w := &world{online: map[identity.ID]bool{alice: true, bob: true}}
	w.rt = router.New(router.Parts{
		Residence: w, Access: w, Budget: w,
		Builtin: map[string]router.Handler{"Built": w.handler("built-in")},
		Remote:  w.handler("another node"),
	})
	return w
}

func (w *world) step(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, s)
}

func (w *world) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.steps
	w.steps = nil
	return s
}

// set changes w, as a commit does.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) Here(id identity.ID) (here, online bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	online, here = w.online[id]
	return here, online
}

// Owner: everything here is uid 1's, until it is given away.
func (w *world) Owner(id identity.ID) (uid uint32, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.online[id]; !ok {
		return 0, false
	}
	if uid, given := w.owner[id]; given {
		return uid, true
	}
	return 1, true
}

func (w *world) Incoming(owner, from identity.ID, protocol, instance string) error {
	w.mu.Lock()
	f := w.incoming
	w.steps = append(w.steps, "access in "+protocol+"/"+instance)
	w.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(owner, from, protocol, instance)
}

func (w *world) Outgoing(owner, to identity.ID) error {
	w.mu.Lock()
	f := w.outgoing
	w.steps = append(w.steps, "access out")
	w.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(owner, to)
}

func (w *world) AcquirePeer(_, _ identity.ID, _ router.Kind) (func(), error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, "budget")
	if w.budget != nil {
		return nil, w.budget
	}
	w.taken++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.given++
	}, nil
}

// handler answers with its own name.
func (w *world) handler(name string) router.Handler {
	return router.HandlerFunc(func(context.Context, *router.Request) (json.RawMessage, error) {
		w.step(name)
		return json.RawMessage(`"` + name + `"`), nil
	})
}

func (w *world) listen(t *testing.T, owner identity.ID, protocol string, h router.Handler, kinds ...router.Kind) {
	t.Helper()
	if _, err := w.rt.Listen(1, owner, protocol, "", kinds, h); err != nil {
		t.Fatal(err)
	}
}

func refuse(identity.ID, identity.ID, string, string) error { return api.Refusal() }

// opened is a request that runs. end gives what Route returned.
type opened struct {
	far *routertest.Conn // the caller's end of a stream
	end chan error
}

// open routes r, a stream, in the background and returns when it was accepted.
func (w *world) open(ctx context.Context, t *testing.T, r *router.Request) *opened {
	t.Helper()
	near, far := routertest.Pipe()
	accepted := make(chan struct{})
	r.Kind = router.Stream
	r.Accept = func() (router.Conn, error) {
		close(accepted)
		return near, nil
	}
	o := &opened{far: far, end: make(chan error, 1)}
	go func() {
		_, err := w.rt.Route(ctx, r)
		o.end <- err
	}()
	select {
	case <-accepted:
	case err := <-o.end:
		select {
		case <-accepted: // both, before this goroutine ran
			o.end <- err
		default:
			t.Fatalf("ended before it was accepted: %v", err)
		}
	}
	return o
}

// echo returns the bytes of a stream until it ends.
var echo = router.HandlerFunc(func(_ context.Context, r *router.Request) (json.RawMessage, error) {
	c, err := r.Accept()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 1<<10)
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		if _, err := c.Write(b[:n]); err != nil {
			return nil, err
		}
	}
})

func wantSteps(t *testing.T, w *world, want ...string) {
	t.Helper()
	if got := w.took(); !slices.Equal(got, want) {
		t.Errorf("steps %q, want %q", got, want)
	}
}

func wantCode(t *testing.T, err error, want api.Code) {
	t.Helper()
	if api.CodeOf(err) != want {
		t.Errorf("got %q (%v), want %q", api.CodeOf(err), err, want)
	}
}
