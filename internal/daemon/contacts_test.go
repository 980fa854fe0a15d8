package daemon

import (
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

func TestTwoDaemonsBecomeContactsAndCall(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	wantNames(t, "contacts of alice", alice.contacts(), "bob")
	wantNames(t, "contacts of bob", bob.contacts(), "alice")
	wantEcho(t, alice.c, "bob")
	wantEcho(t, bob.c, "alice")
	wantEcho(t, alice.c, bob.own().ID52)
	wantEcho(t, alice.c, api.TargetSelf)
	wantCode(t, call(t, alice, "carol"), api.CodeNotFound)
}

func call(t testing.TB, d *testDaemon, target string) error {
	t.Helper()
	_, err := d.c.Call(limited(t), to(target, api.ProtocolEcho, hello))
	return err
}

// Two identities of one node need no network to meet, but access all the same.
func TestTwoIdentitiesOfOneNode(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.own() // the first is named after the user
	verb[api.Identity](t, d.c, api.VerbIdentityNew, api.NameArgs{Name: "work"})
	home, work := d.as(d.own().Name), d.as("work")
	homeID := verb[api.Identity](t, home, api.VerbIdentityShow, nil).ID52
	workID := verb[api.Identity](t, work, api.VerbIdentityShow, nil).ID52
	if homeID == workID {
		t.Fatal("two identities have one id")
	}
	// To a stranger it is as one that is nowhere.
	got := wantNoEcho(t, home, workID, api.CodePeerUnreachable)
	nowhere, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	want := wantNoEcho(t, home, nowhere.ID().String(), api.CodePeerUnreachable)
	if strings.ReplaceAll(full(got), workID[:8], "") != strings.ReplaceAll(full(want), nowhere.ID().Short(), "") {
		t.Errorf("a stranger on this node is told %s, of one that is nowhere %s", full(got), full(want))
	}

	ticket := verb[api.Invitation](t, work, api.VerbContactInvite, api.InviteArgs{For: "home"}).Ticket
	verb[api.Contact](t, home, api.VerbContactAdd, api.ContactAddArgs{Name: "job", Ticket: ticket})
	wantNames(t, "contacts of work", contactNames(t, work), "home")
	wantEcho(t, home, "job")
	wantEcho(t, work, "home")
	if peers := d.status().Peers; len(peers) != 0 {
		t.Errorf("the network was used: %+v", peers)
	}
	verb[struct{}](t, work, api.VerbContactRemove, api.NameArgs{Name: "home"})
	wantNoEcho(t, home, "job", api.CodePeerUnreachable)
}

// The id of what is known to be a node is nobody's, and takes no mail that would wait
// for it.
func TestNodeIsNoContact(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	own := alice.status().Node
	for _, id := range []string{own.ID, own.PeerID} {
		e := refused(t, alice.c, api.CodeBadRequest, api.VerbContactAdd, api.ContactAddArgs{Name: "x", ID: id})
		wantText(t, e.Message, "is the id of a node, not of an identity")
		_, err := alice.c.Send(limited(t), client.Message{Target: id, Protocol: api.ProtocolText, Data: text("x")})
		wantText(t, wantCode(t, err, api.CodeBadRequest).Message, "is the id of a node")
	}
	wantNames(t, "contacts", contactNames(t, alice.c), "bob")
	// Who names an identity's id as that of a node, in an address, takes it from nobody.
	who := bob.own().ID52
	nobody, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	verb[api.Contact](t, alice.c, api.VerbContactAdd, api.ContactAddArgs{Name: "y", ID: nobody.ID().String(), Address: "/ip4/127.0.0.1/udp/1/quic-v1/p2p/" + who})
	wantEcho(t, alice.c, who)
}
