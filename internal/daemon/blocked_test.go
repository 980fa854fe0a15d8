package daemon

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// Whom everybody has blocked is held up as a stranger is, and counted; once one of
// them ends that it is served at once, over the same connection.
func TestBlockedContactsAreLimited(t *testing.T) {
	testutil.LeakCheck(t)
	// Rates so low that a machine, however busy, is over them.
	slow := "[budgets]\nper_peer_refused_opens = 1\nper_node_refused_opens = 1\n"
	alice, bob := start(t, opts{}), start(t, opts{config: slow})
	meet(t, alice, bob)
	verb[api.Identity](t, bob.c, api.VerbIdentityNew, api.NameArgs{Name: "work"})
	work := bob.as("work")
	var inv api.Invitation
	if err := work.Verb(limited(t), api.VerbContactInvite, api.InviteArgs{For: "alice"}, &inv); err != nil {
		t.Fatal(full(err))
	}
	alice.add("work", inv.Ticket)
	wantEcho(t, alice.c, "bob")
	wantEcho(t, alice.c, "work")
	who, err := identity.ParseID(alice.own().ID52)
	if err != nil {
		t.Fatal(err)
	}
	g, node, since := (*gate)(bob.node.Load()), nodeOf(t, alice), connectedSince(alice)
	refuse := func(n int) (counted uint64) {
		t.Helper()
		before := bob.status().Node.RefusedOpens
		for range n {
			wantNoEcho(t, alice.c, "bob", api.CodeRefused)
		}
		return bob.status().Node.RefusedOpens - before
	}
	// Of bob's two identities one still has alice as a contact.
	verb[api.Contact](t, bob.c, api.VerbContactBlock, api.NameArgs{Name: "alice"})
	if n := refuse(40); n != 0 || g.Limited(who, node, netip.Addr{}) {
		t.Errorf("a contact of somebody here is held up: %d refused opens are counted", n)
	}
	wantEcho(t, alice.c, "work")
	verb[api.Contact](t, work, api.VerbContactBlock, api.NameArgs{Name: "alice"})
	if n := refuse(40); n < 40 {
		t.Errorf("of 40 refused opens of one who is blocked %d are counted", n)
	}
	eventually(t, "one who is blocked is held up", func() bool {
		refuse(1)
		return g.Limited(who, node, netip.Addr{}) && g.Limited(identity.ID{}, node, netip.Addr{})
	})
	verb[api.Contact](t, bob.c, api.VerbContactUnblock, api.NameArgs{Name: "alice"})
	if g.Limited(who, node, netip.Addr{}) || g.Limited(identity.ID{}, node, netip.Addr{}) {
		t.Error("one who is blocked no more is still held up")
	}
	wantEcho(t, alice.c, "bob")
	if now := connectedSince(alice); now != since {
		t.Errorf("connected since %v, then since %v", since, now)
	}
}

// connectedSince tells when a daemon's one connection was made.
func connectedSince(d *testDaemon) time.Time { return d.node.Load().host.Peers()[0].Since }

// Who is blocked tells nobody that it comes and goes.
func TestBlockedContactsMakeNoEvents(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	events, err := bob.c.Subscribe(limited(t), api.SubscribeArgs{})
	if err != nil {
		t.Fatal(full(err))
	}
	defer events.Close()
	came := func() (told bool) {
		t.Helper()
		// What is told after it marks that it would have been told.
		bob.node.Load().peerEvent(p2p.Event{Kind: p2p.EventConnected, Node: nodeOf(t, alice), Path: "by test"})
		verb[api.Grant](t, bob.c, api.VerbGrantAdd, api.GrantArgs{Who: api.WhoAnyone, Protocol: "mark"})
		verb[struct{}](t, bob.c, api.VerbGrantRemove, api.GrantArgs{Who: api.WhoAnyone, Protocol: "mark"})
		for marks := 0; marks < 2; {
			e, err := events.Next(limited(t))
			if err != nil {
				t.Fatal(full(err))
			}
			if e.Kind == api.EventGrantChanged {
				marks++
			}
			told = told || e.Kind == api.EventPeerConnected && e.Text == "alice connected, by test"
		}
		return told
	}
	if !came() {
		t.Error("nothing is told of a contact")
	}
	verb[api.Contact](t, bob.c, api.VerbContactBlock, api.NameArgs{Name: "alice"})
	if came() {
		t.Error("one who is blocked makes events")
	}
	verb[api.Contact](t, bob.c, api.VerbContactUnblock, api.NameArgs{Name: "alice"})
	if !came() {
		t.Error("nothing is told of one who is blocked no more")
	}
}

// A node that is to be told of other addresses is not looked for while all who live
// there are blocked, as one that is sought may hold more than a stranger; then it is.
func TestBlockedNodesAreNotSought(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := start(t, opts{}), start(t, opts{})
	meet(t, alice, bob)
	n, bobs := alice.node.Load(), nodeOf(t, bob)
	n.reach.mu.Lock()
	n.reach.tellFor = time.Hour // it is not told meanwhile, however long the test takes
	n.reach.mu.Unlock()
	if err := n.reach.moved(t.Context()); err != nil {
		t.Fatal(err)
	}
	verb[api.Contact](t, alice.c, api.VerbContactBlock, api.NameArgs{Name: "bob"})
	bob.stop()
	eventually(t, "bob is gone", func() bool { return !n.host.Connected(bobs) })
	bob.again(t, opts{})
	// Were it sought, it would be dialled after 1 s and 2 s.
	for over := time.After(4 * time.Second); over != nil; {
		select {
		case <-over:
			over = nil
		case <-time.After(20 * time.Millisecond):
			if n.host.Connected(bobs) {
				t.Fatal("the node of one who is blocked is looked for")
			}
		}
	}
	verb[api.Contact](t, alice.c, api.VerbContactUnblock, api.NameArgs{Name: "bob"})
	eventually(t, "the node is looked for again", func() bool { return n.host.Connected(bobs) })
}
