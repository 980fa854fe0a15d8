package router_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

func TestListenerConflicts(t *testing.T) {
	w := newWorld()
	calls := []router.Kind{router.Call}
	first, err := w.rt.Listen(1, bob, "App", "", calls, w.handler("first"))
	if err != nil {
		t.Fatal(err)
	}
	for _, instance := range []string{"", api.DefaultInstance} {
		_, err = w.rt.Listen(1, bob, "App", instance, calls, w.handler("second"))
		wantCode(t, err, api.CodeConflict)
	}
	for _, l := range []struct{ protocol, instance string }{{"App", "two"}, {"App2", ""}} {
		if _, err := w.rt.Listen(1, bob, l.protocol, l.instance, calls, w.handler("other")); err != nil {
			t.Errorf("%v: %v", l, err)
		}
	}
	if _, err := w.rt.Listen(1, alice, "App", "", calls, w.handler("alice's")); err != nil {
		t.Errorf("another owner: %v", err)
	}
	if got := w.rt.Listening(bob); !slices.Equal(got, []string{"App", "App2"}) {
		t.Errorf("listening: %q", got)
	}
	if got := w.rt.Listening(nobody); got != nil {
		t.Errorf("nobody listens: %q", got)
	}

	first()
	if _, err := w.rt.Listen(1, bob, "App", "", calls, w.handler("second")); err != nil {
		t.Fatalf("after unregister: %v", err)
	}
	first() // must not take the second away
	if _, err := w.rt.Route(t.Context(), &router.Request{From: alice, To: bob, Protocol: "App", Kind: router.Call}); err != nil {
		t.Error(err)
	}
	wantSteps(t, w, "access in App/default", "second")
}

func TestUnregisteredServesNoMore(t *testing.T) {
	w := newWorld()
	stop, err := w.rt.Listen(1, bob, "App", "", []router.Kind{router.Call}, w.handler("program"))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	_, err = w.rt.Route(t.Context(), &router.Request{From: alice, To: bob, Protocol: "App", Kind: router.Call})
	wantCode(t, err, api.CodeProtocolUnavailable)
}

// TestOneOfManyListens: of programs that race for a protocol one gets it.
func TestOneOfManyListens(t *testing.T) {
	w := newWorld()
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := w.rt.Listen(1, bob, "App", "", nil, w.handler("program")); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d listen for the same protocol", won.Load())
	}
}

// TestFormerOwnersProgram: when an identity becomes another user's, the programs
// of the one who had it get none of its requests, nor do they hold its place.
func TestFormerOwnersProgram(t *testing.T) {
	w := newWorld()
	w.listen(t, bob, "App", w.handler("former"), router.Call)
	r := router.Request{From: alice, To: bob, Protocol: "App", Kind: router.Call}
	w.set(func() { w.owner = map[identity.ID]uint32{bob: 2} })
	if _, err := w.rt.Route(t.Context(), &r); api.CodeOf(err) != api.CodeProtocolUnavailable {
		t.Errorf("the former owner's program was asked: %q, %v", w.took(), err)
	}
	if got := w.rt.Listening(bob); len(got) != 0 {
		t.Errorf("serves %q", got)
	}
	if _, err := w.rt.Listen(2, bob, "App", "", []router.Kind{router.Call}, w.handler("present")); err != nil {
		t.Fatal(err)
	}
	w.took()
	if _, err := w.rt.Route(t.Context(), &r); err != nil || !slices.Contains(w.took(), "present") {
		t.Errorf("the present owner's program was not asked: %v", err)
	}
	w.set(func() { w.online = nil })
	w.rt.Forget(bob)
	w.set(func() { w.online = map[identity.ID]bool{alice: true, bob: true} })
	if got := w.rt.Listening(bob); len(got) != 0 {
		t.Errorf("after the identity was removed it serves %q", got)
	}
}

func TestBuiltinsAreTaken(t *testing.T) {
	w := newWorld()
	if _, err := w.rt.Listen(1, bob, "Built", "", nil, w.handler("program")); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a program may take the place of a built-in protocol: %v", err)
	}
	if _, err := w.rt.Listen(1, bob, "Built", "own", nil, w.handler("program")); err != nil {
		t.Errorf("an instance of its own: %v", err)
	}
}
