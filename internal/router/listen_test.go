package router_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

func TestListenerConflicts(t *testing.T) {
	w := newWorld()
	calls := []router.Kind{router.Call}
	first, err := w.rt.Listen(bob, "App", "", calls, w.handler("first"))
	if err != nil {
		t.Fatal(err)
	}
	for _, instance := range []string{"", api.DefaultInstance} {
		_, err = w.rt.Listen(bob, "App", instance, calls, w.handler("second"))
		wantCode(t, err, api.CodeConflict)
	}
	for _, l := range []struct{ protocol, instance string }{{"App", "two"}, {"App2", ""}} {
		if _, err := w.rt.Listen(bob, l.protocol, l.instance, calls, w.handler("other")); err != nil {
			t.Errorf("%v: %v", l, err)
		}
	}
	if _, err := w.rt.Listen(alice, "App", "", calls, w.handler("alice's")); err != nil {
		t.Errorf("another owner: %v", err)
	}
	if got := w.rt.Listening(bob); !slices.Equal(got, []string{"App", "App2"}) {
		t.Errorf("listening: %q", got)
	}
	if got := w.rt.Listening(nobody); got != nil {
		t.Errorf("nobody listens: %q", got)
	}

	first()
	if _, err := w.rt.Listen(bob, "App", "", calls, w.handler("second")); err != nil {
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
	stop, err := w.rt.Listen(bob, "App", "", []router.Kind{router.Call}, w.handler("program"))
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
			if _, err := w.rt.Listen(bob, "App", "", nil, w.handler("program")); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d listen for the same protocol", won.Load())
	}
}
