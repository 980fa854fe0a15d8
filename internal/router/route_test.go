package router_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// TestOneHandler is the map of the spine: who asks whom for what, and which
// parts are asked, in which order, until which handler.
func TestOneHandler(t *testing.T) {
	in := func(what string) string { return "access in " + what }
	tests := map[string]struct {
		r     router.Request
		steps []string
		code  api.Code
	}{
		"built-in, local": {
			router.Request{From: alice, To: bob, Protocol: "Built", Kind: router.Call},
			[]string{in("Built/default"), "built-in"}, ""},
		"built-in, self": {
			router.Request{From: bob, To: bob, Protocol: "Built", Kind: router.Call},
			[]string{in("Built/default"), "built-in"}, ""},
		"built-in, from a peer": {
			router.Request{From: carol, To: bob, Protocol: "Built", Kind: router.Call, Node: carolNode},
			[]string{in("Built/default"), "budget", "built-in"}, ""},
		"program, local": {
			router.Request{From: alice, To: bob, Protocol: "App", Kind: router.Call},
			[]string{in("App/default"), "bob's program"}, ""},
		"program, from a peer": {
			router.Request{From: carol, To: bob, Protocol: "App", Kind: router.Stream, Node: carolNode},
			[]string{in("App/default"), "budget", "bob's program"}, ""},
		"program of an instance": {
			router.Request{From: alice, To: bob, Protocol: "App", Instance: "two", Kind: router.Call},
			[]string{in("App/two"), "bob's second"}, ""},
		"another node": {
			router.Request{From: alice, To: carol, Protocol: "App", Kind: router.Call},
			[]string{"access out", "another node"}, ""},
		"never forwards for a peer": {
			router.Request{From: nobody, To: carol, Protocol: "App", Kind: router.Call, Node: carolNode},
			nil, api.CodeRefused},
		"program of another identity": {
			router.Request{From: bob, To: alice, Protocol: "App", Kind: router.Call},
			[]string{in("App/default")}, api.CodeProtocolUnavailable},
		"no such instance": {
			router.Request{From: alice, To: bob, Protocol: "App", Instance: "three", Kind: router.Call},
			[]string{in("App/three")}, api.CodeProtocolUnavailable},
		"built-in has one instance": {
			router.Request{From: alice, To: bob, Protocol: "Built", Instance: "two", Kind: router.Call},
			[]string{in("Built/two")}, api.CodeProtocolUnavailable},
		"wrong kind": {
			router.Request{From: alice, To: bob, Protocol: "App", Instance: "two", Kind: router.Stream},
			[]string{in("App/two")}, api.CodeProtocolUnavailable},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.listen(t, bob, "App", w.handler("bob's program"), router.Call, router.Stream)
			if _, err := w.rt.Listen(1, bob, "App", "two", []router.Kind{router.Call}, w.handler("bob's second")); err != nil {
				t.Fatal(err)
			}
			data, err := w.rt.Route(t.Context(), &c.r)
			wantCode(t, err, c.code)
			wantSteps(t, w, c.steps...)
			if err == nil && string(data) != `"`+c.steps[len(c.steps)-1]+`"` {
				t.Errorf("answered %s", data)
			}
			if err != nil && data != nil {
				t.Errorf("answered %s and %v", data, err)
			}
		})
	}
}

func TestUnavailableNamesWhatIsMissing(t *testing.T) {
	w := newWorld()
	w.listen(t, bob, "App", w.handler("program"), router.Call)
	for _, c := range []struct {
		instance string
		kind     router.Kind
		want     string
		command  string
	}{
		{"", router.Stream, "nobody serves App as a stream there now", "fastn listen App"},
		{"two", router.Call, "nobody serves App (instance two) there now", "fastn listen --instance two App"},
	} {
		_, err := w.rt.Route(t.Context(), &router.Request{From: alice, To: bob, Protocol: "App", Instance: c.instance, Kind: c.kind})
		if e := api.AsError(err); e == nil || e.Message != c.want || !strings.HasSuffix(e.Hint, c.command) {
			t.Errorf("%+v", e)
		}
	}
}

// TestRefusalTellsNothing: whoever may not call learns the same about what is
// there and what is not.
// TestStrangerOnThisNode: an identity that is here is to a local stranger as one
// of which nothing is known, down to a block of the stranger's own.
func TestStrangerOnThisNode(t *testing.T) {
	w := newWorld()
	w.incoming = func(identity.ID, identity.ID, string, string) error { return api.Refusal() }
	for _, to := range []identity.ID{bob, carol} {
		if _, err := w.rt.Route(t.Context(), &router.Request{From: alice, To: to, Protocol: "Built", Kind: router.Call}); err != nil {
			t.Errorf("%s: %v", to, err)
		}
		if steps := w.took(); !slices.Equal(steps[len(steps)-2:], []string{"access out", "another node"}) {
			t.Errorf("%s: %q", to, steps)
		}
	}
	w.incoming = func(identity.ID, identity.ID, string, string) error {
		return api.Errorf(api.CodeRefused, "not granted")
	}
	_, err := w.rt.Route(t.Context(), &router.Request{From: alice, To: bob, Protocol: "Built", Kind: router.Call})
	if api.CodeOf(err) != api.CodeRefused {
		t.Errorf("a contact is told %v", err)
	}
}

func TestRefusalTellsNothing(t *testing.T) {
	w := newWorld()
	w.incoming = refuse
	w.online[alice] = false
	w.listen(t, bob, "App", w.handler("program"), router.Call)
	want := *api.Refusal()
	for _, r := range []router.Request{
		{To: bob, Protocol: "App"}, {To: bob, Protocol: "Built"}, {To: bob, Protocol: "Nothing"},
		{To: bob, Protocol: "App", Instance: "two"}, {To: alice, Protocol: "Built"}, {To: nobody, Protocol: "App"},
	} {
		r.From, r.Kind, r.Node = carol, router.Call, carolNode
		data, err := w.rt.Route(t.Context(), &r)
		if e := api.AsError(err); e == nil || *e != want || data != nil {
			t.Errorf("%s of %s: %s, %+v", r.Protocol, r.To.Short(), data, e)
		}
	}
	if w.taken != 0 {
		t.Error("a refused request took budget")
	}
}

func TestOfflineIsToldBehindAccess(t *testing.T) {
	w := newWorld()
	w.online[bob] = false
	r := router.Request{From: carol, To: bob, Protocol: "Built", Kind: router.Call, Node: carolNode}
	_, err := w.rt.Route(t.Context(), &r)
	wantCode(t, err, api.CodeOffline)
	wantSteps(t, w, "access in Built/default")
}

func TestOutgoingRefused(t *testing.T) {
	w := newWorld()
	w.outgoing = func(owner, to identity.ID) error {
		if owner == alice && to == carol {
			return api.Errorf(api.CodeNotPermitted, "blocked")
		}
		return nil
	}
	_, err := w.rt.Route(t.Context(), &router.Request{From: alice, To: carol, Protocol: "App", Kind: router.Call})
	wantCode(t, err, api.CodeNotPermitted)
	wantSteps(t, w, "access out")
}

func TestBudgetIsGivenBack(t *testing.T) {
	failed := errors.New("failed")
	for name, want := range map[string]error{"done": nil, "failed": failed} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.listen(t, bob, "App", router.HandlerFunc(func(context.Context, *router.Request) (json.RawMessage, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if w.taken != 1 || w.given != 0 {
					t.Errorf("while it runs: taken %d, given %d", w.taken, w.given)
				}
				return nil, want
			}), router.Call)
			_, err := w.rt.Route(t.Context(), &router.Request{From: carol, To: bob, Protocol: "App", Kind: router.Call, Node: carolNode})
			if !errors.Is(err, want) {
				t.Errorf("got %v", err)
			}
			if w.taken != 1 || w.given != 1 {
				t.Errorf("taken %d, given %d", w.taken, w.given)
			}
		})
	}
	t.Run("over", func(t *testing.T) {
		w := newWorld()
		w.budget = api.Errorf(api.CodeOverBudget, "too much")
		_, err := w.rt.Route(t.Context(), &router.Request{From: carol, To: bob, Protocol: "Built", Kind: router.Call, Node: carolNode})
		wantCode(t, err, api.CodeOverBudget)
		wantSteps(t, w, "access in Built/default", "budget")
	})
}

// TestEndedTellsWhy: a handler that fails because its caller is gone is not
// what the caller is told about.
func TestEndedTellsWhy(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	why, cancelWhy := context.WithCancelCause(context.Background())
	cancelWhy(api.Errorf(api.CodeNotPermitted, "disconnected"))
	for want, ctx := range map[api.Code]context.Context{
		api.CodeCancelled: cancelled, api.CodeTimeout: late, api.CodeNotPermitted: why,
	} {
		w := newWorld()
		_, err := w.rt.Route(ctx, &router.Request{From: alice, To: bob, Protocol: "Built", Kind: router.Call})
		wantCode(t, err, want)
		wantSteps(t, w, "access in Built/default") // no handler begins
	}
	wantCode(t, router.Ended(context.Background()), api.CodeCancelled)

	ctx, cancel := context.WithCancel(context.Background())
	w := newWorld()
	w.listen(t, bob, "App", router.HandlerFunc(func(context.Context, *router.Request) (json.RawMessage, error) {
		cancel()
		return nil, errors.New("half a write to a dead program")
	}), router.Call)
	_, err := w.rt.Route(ctx, &router.Request{From: alice, To: bob, Protocol: "App", Kind: router.Call})
	wantCode(t, err, api.CodeCancelled)
}

func TestKinds(t *testing.T) {
	for k, want := range map[router.Kind]string{
		router.Call: "call", router.Stream: "stream", router.Message: "message", 0: "unknown"} {
		if k.String() != want {
			t.Errorf("%d is %q", k, k)
		}
	}
}
