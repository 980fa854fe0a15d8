package daemon

import (
	"context"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

func TestPingAndPeers(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	ping := func(target string) api.Pong {
		return verb[api.Pong](t, alice.c, api.VerbPeerPing, api.TargetArgs{Target: target})
	}
	if p := ping("bob"); !strings.HasPrefix(p.Path, "direct ") || p.RTTMicros <= 0 || p.Address == "" {
		t.Errorf("ping bob: %+v", p)
	}
	if p := ping(api.TargetSelf); p.Path != "this machine" || p.Address != "" {
		t.Errorf("ping self: %+v", p)
	}
	peers := verb[[]api.Peer](t, alice.c, api.VerbPeerList, nil)
	if len(peers) != 1 || peers[0].Node != bob.status().Node.ID || !peers[0].Connected || peers[0].Reason != "" {
		t.Fatalf("peers: %+v", peers)
	}
	wantNames(t, "contacts there", peers[0].Contacts, "bob")

	bob.stop()
	eventually(t, "alice sees that bob is gone", func() bool {
		p := verb[[]api.Peer](t, alice.c, api.VerbPeerList, nil)[0]
		return !p.Connected && p.Reason != "" && p.Node == peers[0].Node
	})
	refused(t, alice.c, api.CodePeerUnreachable, api.VerbPeerPing, api.TargetArgs{Target: "bob"})
}

func TestEventsTellWhatHappens(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := start(t, opts{}), start(t, opts{})
	id := bob.own().ID52
	events, err := bob.c.Subscribe(limited(t), api.SubscribeArgs{})
	if err != nil {
		t.Fatal(full(err))
	}
	defer events.Close()
	want := func(kind string, is func(api.Event) bool) {
		t.Helper()
		for {
			e, err := events.Next(limited(t))
			if err != nil {
				t.Fatalf("in vain waited for %s: %s", kind, full(err))
			}
			if e.Kind == kind && e.Identity == id && is(e) && e.Text != "" {
				return
			}
		}
	}
	ticket := bob.invite(api.InviteArgs{For: "alice"})
	alice.add("bob", ticket)
	want(api.EventContactAdded, func(e api.Event) bool { return e.Contact == "alice" })
	verb[api.Grant](t, bob.c, api.VerbGrantAdd, api.GrantArgs{Who: "alice", Protocol: "x"})
	want(api.EventGrantChanged, func(e api.Event) bool { return e.Contact == "alice" && e.Protocol == "x" })
	stop := serve(t, bob.c, "x", func(context.Context, *client.Incoming) {})
	want(api.EventListening, func(e api.Event) bool { return e.Protocol == "x" })
	stop()
	want(api.EventListenEnded, func(e api.Event) bool { return e.Protocol == "x" })
	verb[struct{}](t, bob.c, api.VerbContactRemove, api.NameArgs{Name: "alice"})
	want(api.EventContactRemoved, func(e api.Event) bool { return e.Contact == "alice" })
	verb[api.Identity](t, bob.c, api.VerbIdentityOffline, nil)
	want(api.EventIdentityChanged, func(api.Event) bool { return true })
}

// What `fastn peers` says of a node: how far it is, and if it is not there, why.
func TestPeersTellDistanceAndReason(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	wantEcho(t, alice.c, "bob")
	one := func() api.Peer {
		t.Helper()
		peers := alice.status().Peers
		if len(peers) != 1 {
			t.Fatalf("%+v", peers)
		}
		return peers[0]
	}
	if p := one(); !p.Connected || p.RTTMicros <= 0 || p.Reason != "" {
		t.Errorf("connected: %+v", p)
	}
	bob.stop()
	eventually(t, "the connection is gone", func() bool { return !one().Connected })
	wantNoEcho(t, alice.c, "bob", api.CodePeerUnreachable)
	if p := one(); !strings.Contains(p.Reason, "127.0.0.1") {
		t.Errorf("gone: %+v", p)
	}
}
