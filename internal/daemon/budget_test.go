package daemon

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/peercred"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

var listenPipe = client.ListenOptions{Protocol: "pipe"}

// hang has d make calls that bob's program does not answer until release.
func hang(t testing.TB, d, bob *testDaemon, calls int) (release func()) {
	t.Helper()
	verb[api.Grant](t, bob.c, api.VerbGrantAdd, api.GrantArgs{Who: api.WhoContacts, Protocol: "pipe"})
	l, err := bob.c.Listen(limited(t), listenPipe)
	if err != nil {
		t.Fatal(full(err))
	}
	t.Cleanup(func() { _ = l.Close() })
	done := make(chan error, calls)
	var held []*client.Incoming
	for range calls {
		go func() {
			_, err := d.c.Call(context.Background(), client.Request{Target: "bob", Protocol: "pipe", Timeout: patience})
			done <- err
		}()
		in, err := l.Next(limited(t))
		if err != nil {
			t.Fatal(full(err))
		}
		held = append(held, in)
	}
	return func() {
		t.Helper()
		for _, in := range held {
			if err := in.Reply(limited(t), nil); err != nil {
				t.Error(full(err))
			}
		}
		for range held {
			if err := receive(t, "a call that was held", done); err != nil {
				t.Error(full(err))
			}
		}
	}
}

// A local refusal names the budget, its owner and its setting.
func TestLocalBudget(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := start(t, opts{config: "[budgets]\nper_uid_requests = 2\n"}), start(t, opts{})
	meet(t, alice, bob)
	release := hang(t, alice, bob, 2)
	e := wantNoEcho(t, alice.c, "bob", api.CodeOverBudget)
	wantText(t, e.Message, "2 of 2 requests in flight", "budgets.per_uid_requests", peercred.UserName(admin.UID))
	wantText(t, e.Hint, "budgets.per_uid_requests", "reload the daemon")
	use := alice.status().Budgets
	if use[1].Used != 2 || use[1].Limit != 2 || use[1].Setting != "budgets.per_uid_requests" {
		t.Errorf("status shows %+v", use)
	}
	// The hint: raise it and reload.
	alice.configure(loopbackOnly + "[budgets]\nper_uid_requests = 3\n")
	alice.mustReload()
	wantEcho(t, alice.c, "bob")
	release()
	eventually(t, "the budget is free again", func() bool { return alice.status().Budgets[1].Used == 0 })
}

// The other side's refusal names its budget and side, nothing of its inside.
func TestRemoteBudget(t *testing.T) {
	for _, c := range []struct{ setting, kind, what string }{
		{"per_peer_requests", "call", "requests in flight"},
		{"per_peer_streams", "stream", "streams"},
	} {
		t.Run(c.setting, func(t *testing.T) {
			testutil.LeakCheck(t)
			alice, bob := start(t, opts{}), start(t, opts{config: fmt.Sprintf("[budgets]\n%s = 2\n", c.setting)})
			meet(t, alice, bob)
			var err error
			if c.kind == "call" {
				release := hang(t, alice, bob, 2)
				defer release()
				err = call(t, alice, "bob")
			} else {
				openStream(t, alice, "bob", api.ProtocolEcho)
				openStream(t, alice, "bob", api.ProtocolEcho)
				_, err = alice.c.Stream(limited(t), to("bob", api.ProtocolEcho, nil))
			}
			e := wantCode(t, err, api.CodeOverBudget)
			wantText(t, e.Message, c.what, "(2)", "peer's side")
			for _, inside := range []string{"budgets.", "fastn.toml", "uid", peercred.UserName(admin.UID)} {
				if strings.Contains(e.Message+e.Hint, inside) {
					t.Errorf("the peer is told %q: %s", inside, full(e))
				}
			}
		})
	}
}

// A stranger who may use one protocol is told no budget of it.
func TestStrangersAreToldNoBudget(t *testing.T) {
	testutil.LeakCheck(t)
	bob, carol := start(t, opts{config: "[budgets]\nper_peer_streams = 1\n"}), start(t, opts{})
	verb[api.Grant](t, bob.c, api.VerbGrantAdd, api.GrantArgs{Who: api.WhoAnyone, Protocol: api.ProtocolEcho})
	introduce(t, carol, "bob", bob.own().ID52, bob)
	openStream(t, carol, "bob", api.ProtocolEcho)
	_, err := carol.c.Stream(limited(t), to("bob", api.ProtocolEcho, nil))
	if e := wantCode(t, err, api.CodeRefused); *e != *api.Refusal() {
		t.Errorf("a stranger is told %s", full(e))
	}
}

// A local stream's budget is given back when the stream has ended.
func TestStreamBudgetIsGivenBack(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{config: "[budgets]\nper_uid_streams = 1\n"})
	for range 3 {
		s := openStream(t, d, api.TargetSelf, api.ProtocolEcho)
		_, err := d.c.Stream(limited(t), to(api.TargetSelf, api.ProtocolEcho, nil))
		wantText(t, wantCode(t, err, api.CodeOverBudget).Message, "budgets.per_uid_streams")
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		wantClean(t, "near", s)
	}
}
