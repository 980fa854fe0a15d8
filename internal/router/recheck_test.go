package router_test

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/router/routertest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// TestRecheck opens one stream each way between bob, whose rules change, and
// two others, and tells which end and with which code.
func TestRecheck(t *testing.T) {
	type way struct{ from, to identity.ID }
	all := []way{{carol, bob}, {alice, bob}, {bob, carol}, {bob, alice}, {bob, bob}, {alice, carol}}
	carolsGrant := func(_, from identity.ID, _, _ string) error {
		if from == carol {
			return api.Refusal()
		}
		return nil
	}
	tests := map[string]struct {
		change func(*world)
		who    identity.ID
		cut    bool
		ended  map[way]api.Code
	}{
		"nothing changed": {func(*world) {}, identity.ID{}, false, nil},
		"grant withdrawn": {func(w *world) { w.incoming = carolsGrant }, carol, false,
			map[way]api.Code{{carol, bob}: api.CodeRefused}},
		"grant of anyone withdrawn": {func(w *world) { w.incoming = carolsGrant }, identity.ID{}, false,
			map[way]api.Code{{carol, bob}: api.CodeRefused}},
		"another's grant withdrawn": {func(w *world) { w.incoming = carolsGrant }, alice, false, nil},
		"contact blocked": {func(w *world) { w.incoming = carolsGrant }, carol, true,
			map[way]api.Code{{carol, bob}: api.CodeRefused, {bob, carol}: api.CodeNotPermitted}},
		"contact on this node removed": {func(*world) {}, alice, true,
			map[way]api.Code{{bob, alice}: api.CodeNotPermitted}},
		"may call no more": {func(w *world) {
			w.outgoing = func(owner, _ identity.ID) error {
				if owner == bob {
					return api.Errorf(api.CodeOverBudget, "no")
				}
				return nil
			}
		}, carol, false, map[way]api.Code{{bob, carol}: api.CodeOverBudget}},
		"offline": {func(w *world) { w.online[bob] = false }, identity.ID{}, false,
			map[way]api.Code{{carol, bob}: api.CodeOffline, {alice, bob}: api.CodeOffline, {bob, bob}: api.CodeOffline}},
		"identity removed": {func(w *world) { delete(w.online, bob) }, identity.ID{}, true,
			map[way]api.Code{{carol, bob}: api.CodeRefused, {alice, bob}: api.CodeRefused, {bob, bob}: api.CodeRefused,
				{bob, carol}: api.CodeNotPermitted, {bob, alice}: api.CodeNotPermitted}},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				w := newWorld()
				w.rt = router.New(router.Parts{Residence: w, Access: w, Budget: w, Remote: echo,
					Builtin: map[string]router.Handler{"Echo": echo}})
				open := make(map[way]*opened)
				for _, x := range all {
					r := &router.Request{From: x.from, To: x.to, Protocol: "Echo"}
					if x.from == carol {
						r.Node = carolNode
					}
					open[x] = w.open(ctx, t, r)
				}
				w.set(func() { c.change(w) })
				w.rt.Recheck(bob, c.who, c.cut)
				synctest.Wait()
				for x, o := range open {
					want := c.ended[x]
					if want == "" {
						wantEcho(t, o)
						continue
					}
					select {
					case err := <-o.end:
						wantCode(t, err, want)
					default:
						t.Errorf("%s to %s is still open", x.from.Short(), x.to.Short())
						continue
					}
					_, err := o.far.Read(make([]byte, 1))
					wantCode(t, err, want)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

func wantEcho(t *testing.T, o *opened) {
	t.Helper()
	if _, err := o.far.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(o.far, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// TestRecheckWhileAccessIsAsked: the rule changes, and Recheck runs, after
// access allowed a request and before its handler began.
func TestRecheckWhileAccessIsAsked(t *testing.T) {
	w := newWorld()
	w.incoming = func(identity.ID, identity.ID, string, string) error {
		w.set(func() { w.incoming = refuse })
		w.rt.Recheck(bob, carol, false)
		return nil
	}
	_, err := w.rt.Route(t.Context(), &router.Request{From: carol, To: bob, Protocol: "Built", Kind: router.Call, Node: carolNode})
	wantCode(t, err, api.CodeRefused)
	if slices.Contains(w.took(), "built-in") {
		t.Error("the handler ran after access was withdrawn")
	}
}

func TestRecheckEndsACall(t *testing.T) {
	testutil.LeakCheck(t)
	w := newWorld()
	w.listen(t, bob, "App", router.HandlerFunc(func(ctx context.Context, _ *router.Request) (json.RawMessage, error) {
		w.set(func() { w.incoming = refuse })
		w.rt.Recheck(bob, carol, false)
		<-ctx.Done()
		return nil, ctx.Err()
	}), router.Call)
	_, err := w.rt.Route(t.Context(), &router.Request{From: carol, To: bob, Protocol: "App", Kind: router.Call, Node: carolNode})
	wantCode(t, err, api.CodeRefused)
}

func TestEndOfContextResetsTheStream(t *testing.T) {
	testutil.LeakCheck(t)
	w := newWorld()
	w.listen(t, bob, "App", echo, router.Stream)
	ctx, cancel := context.WithCancel(t.Context())
	o := w.open(ctx, t, &router.Request{From: alice, To: bob, Protocol: "App"})
	wantEcho(t, o)
	cancel()
	wantCode(t, <-o.end, api.CodeCancelled)
	_, err := o.far.Read(make([]byte, 1))
	wantCode(t, err, api.CodeCancelled)
}

// TestNoResetAfterTheEnd: the context of a request that ended well ends right
// after; the stream that the other side still reads must not be reset.
func TestNoResetAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		near, far := routertest.Pipe()
		w.listen(t, bob, "App", router.HandlerFunc(func(_ context.Context, r *router.Request) (json.RawMessage, error) {
			c, err := r.Accept()
			if err != nil {
				return nil, err
			}
			_, _ = c.Write([]byte("all of it"))
			return nil, c.CloseWrite()
		}), router.Stream)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := w.rt.Route(ctx, &router.Request{From: alice, To: bob, Protocol: "App", Kind: router.Stream,
			Accept: func() (router.Conn, error) { return near, nil }})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait() // for a reset that must not come
		got, err := io.ReadAll(far)
		if err != nil || string(got) != "all of it" || near.Resets() != nil {
			t.Errorf("read %q, %v; resets %q", got, err, near.Resets())
		}
	})
}

func TestErrorAfterAcceptResetsTheStream(t *testing.T) {
	for want, failure := range map[api.Code]error{
		api.CodeStalled: api.Errorf(api.CodeStalled, "slow"),
		api.CodeAborted: io.ErrUnexpectedEOF,
	} {
		w := newWorld()
		w.listen(t, bob, "App", router.HandlerFunc(func(_ context.Context, r *router.Request) (json.RawMessage, error) {
			_, _ = r.Accept()
			return nil, failure
		}), router.Stream)
		o := w.open(t.Context(), t, &router.Request{From: alice, To: bob, Protocol: "App"})
		if err := <-o.end; err != failure {
			t.Errorf("got %v", err)
		}
		_, err := o.far.Read(make([]byte, 1))
		wantCode(t, err, want)
	}
}

func TestAcceptAfterTheEnd(t *testing.T) {
	w := newWorld()
	ctx, cancel := context.WithCancel(t.Context())
	w.listen(t, bob, "App", router.HandlerFunc(func(_ context.Context, r *router.Request) (json.RawMessage, error) {
		cancel()
		c, err := r.Accept()
		if c != nil {
			t.Error("a stream was accepted for a caller who is gone")
		}
		return nil, err
	}), router.Stream)
	_, err := w.rt.Route(ctx, &router.Request{From: alice, To: bob, Protocol: "App", Kind: router.Stream,
		Accept: func() (router.Conn, error) {
			t.Error("accept was called")
			return nil, nil
		}})
	wantCode(t, err, api.CodeCancelled)
}

func TestAcceptFails(t *testing.T) {
	w := newWorld()
	w.listen(t, bob, "App", echo, router.Stream)
	_, err := w.rt.Route(t.Context(), &router.Request{From: alice, To: bob, Protocol: "App", Kind: router.Stream,
		Accept: func() (router.Conn, error) { return nil, api.Errorf(api.CodeUnavailable, "gone") }})
	wantCode(t, err, api.CodeUnavailable)
}
