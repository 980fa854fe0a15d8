package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// add redeems a ticket, which must succeed.
func (d *testDaemon) add(name, ticket string) api.Contact {
	d.t.Helper()
	return verb[api.Contact](d.t, d.c, api.VerbContactAdd, api.ContactAddArgs{Name: name, Ticket: ticket})
}

// addRefused redeems a ticket, which must fail and leave nothing behind.
func (d *testDaemon) addRefused(code api.Code, name, ticket string) *api.Error {
	d.t.Helper()
	before := strings.Join(d.contacts(), " ")
	e := refused(d.t, d.c, code, api.VerbContactAdd, api.ContactAddArgs{Name: name, Ticket: ticket})
	if after := strings.Join(d.contacts(), " "); after != before {
		d.t.Errorf("contacts were %q, after a refused ticket they are %q", before, after)
	}
	return e
}

func TestTicketAgain(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob, carol := start(t, opts{}), start(t, opts{}), start(t, opts{})
	ticket := alice.invite(api.InviteArgs{For: "bob"})
	first := bob.add("alice", ticket)
	// The answer may have been lost: the same again is no second contact.
	if again := bob.add("alice", ticket); again.ID52 != first.ID52 || again.Name != first.Name {
		t.Errorf("first %+v, then %+v", first, again)
	}
	wantNames(t, "contacts of alice", alice.contacts(), "bob")
	wantNames(t, "contacts of bob", bob.contacts(), "alice")
	// Under another name it would rename a contact.
	bob.addRefused(api.CodeConflict, "other", ticket)

	e := carol.addRefused(api.CodeExpired, "alice", ticket)
	wantText(t, e.Message, "used")
	wantText(t, e.Hint, "fastn invite")
	wantNames(t, "contacts of alice", alice.contacts(), "bob")
}

// The inviter committed, and the answer never came: bob's side kept nothing, and
// the same ticket makes it whole.
func TestTicketWhoseAnswerWasLost(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := start(t, opts{}), start(t, opts{})
	ticket := alice.invite(api.InviteArgs{For: "bob"})
	bob.add("alice", ticket)
	verb[struct{}](t, bob.c, api.VerbContactRemove, api.NameArgs{Name: "alice"})
	bob = bob.again(t, opts{})
	wantNames(t, "contacts of alice", alice.contacts(), "bob")
	wantNames(t, "contacts of bob", bob.contacts())
	bob.add("alice", ticket)
	wantEcho(t, bob.c, "alice")
	wantEcho(t, alice.c, "bob")
}

func TestTicketExpires(t *testing.T) {
	testutil.LeakCheck(t)
	early, late := new(clock), new(clock)
	alice, bob := start(t, opts{clock: early}), start(t, opts{clock: late})
	ticket := alice.invite(api.InviteArgs{Expires: 60})
	early.forward(2 * time.Minute)
	e := bob.addRefused(api.CodeExpired, "alice", ticket)
	wantText(t, e.Message, "expired")
	wantNames(t, "contacts of alice", alice.contacts())
	// Bob's own clock says so before anybody is asked.
	late.forward(2 * time.Minute)
	alice.stop()
	e = bob.addRefused(api.CodeBadRequest, "alice", ticket)
	wantText(t, e.Message, "expired")
}

func TestTicketsThatAreNone(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := start(t, opts{}), start(t, opts{})
	ticket := alice.invite(api.InviteArgs{})
	middle := []byte(ticket)
	if i := len(middle) / 2; middle[i] == '0' {
		middle[i] = '1'
	} else {
		middle[i] = '0'
	}
	for name, bad := range map[string]string{
		"changed": string(middle), "cut": ticket[:len(ticket)-8], "longer": ticket + "00",
		"another prefix": "fastn2" + ticket[6:], "with a space": ticket[:40] + " " + ticket[40:], "words": "hello",
	} {
		e := bob.addRefused(api.CodeBadRequest, "alice", bad)
		if strings.Contains(e.Message+e.Hint, bad) {
			t.Errorf("%s: the error repeats the ticket", name)
		}
	}
	refused(t, bob.c, api.CodeBadRequest, api.VerbContactAdd, api.ContactAddArgs{Name: "alice"})
	refused(t, bob.c, api.CodeBadRequest, api.VerbContactAdd, api.ContactAddArgs{Name: "alice", Ticket: ticket, ID: alice.own().ID52})
	wantNames(t, "contacts of alice", alice.contacts())
}

func TestOwnTicket(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	e := d.addRefused(api.CodeBadRequest, "me", d.invite(api.InviteArgs{}))
	wantText(t, e.Message, "your own")
}

// Removal and blocking void the ticket that made the contact.
func TestTicketIsVoidAfterRemovalAndBlock(t *testing.T) {
	for _, c := range []struct {
		verb string
		code api.Code // what bob is told when he tries again
	}{
		{api.VerbContactRemove, api.CodeExpired},
		{api.VerbContactBlock, api.CodeRefused},
	} {
		t.Run(c.verb, func(t *testing.T) {
			testutil.LeakCheck(t)
			alice, bob := start(t, opts{}), start(t, opts{})
			ticket := alice.invite(api.InviteArgs{For: "bob"})
			bob.add("alice", ticket)
			if err := alice.c.Verb(limited(t), c.verb, api.NameArgs{Name: "bob"}, nil); err != nil {
				t.Fatal(full(err))
			}
			e := refused(t, bob.c, c.code, api.VerbContactAdd, api.ContactAddArgs{Name: "alice", Ticket: ticket})
			if strings.Contains(e.Message, "somebody else") {
				t.Errorf("bob used it himself, and is told %q", e.Message)
			}
			if c.verb == api.VerbContactBlock {
				verb[api.Contact](t, alice.c, api.VerbContactUnblock, api.NameArgs{Name: "bob"})
				verb[struct{}](t, alice.c, api.VerbContactRemove, api.NameArgs{Name: "bob"})
			}
			verb[struct{}](t, bob.c, api.VerbContactRemove, api.NameArgs{Name: "alice"})
			bob.addRefused(api.CodeExpired, "alice", ticket)
			wantNames(t, "contacts of alice", alice.contacts())
			wantNoEcho(t, bob.c, alice.own().ID52, api.CodeRefused)
		})
	}
}

// The inviter's new contact is named by the invitation, or if that name is taken
// meanwhile by its id; the peer never names it, and nobody is renamed.
func TestTicketNames(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob, carol := start(t, opts{}), start(t, opts{}), start(t, opts{})
	one, two := alice.invite(api.InviteArgs{For: "friend"}), alice.invite(api.InviteArgs{For: "friend"})
	bob.add("alice", one)
	carol.add("alice", two)
	short := carol.own().ID52[:8]
	for _, c := range verb[[]api.Contact](t, alice.c, api.VerbContactList, nil) {
		want := map[string]string{"friend": bob.own().ID52, short: carol.own().ID52}[c.Name]
		if c.ID52 != want {
			t.Errorf("%s is named %s", c.ID52, c.Name)
		}
	}
	e := refused(t, alice.c, api.CodeConflict, api.VerbContactInvite, api.InviteArgs{For: "friend"})
	wantText(t, e.Hint, "fastn contact rename friend")

	// A contact of another ticket keeps its name, here and there.
	bob.addRefused(api.CodeConflict, "again", alice.invite(api.InviteArgs{For: "other"}))
	if n := len(alice.contacts()); n != 2 {
		t.Errorf("alice has %d contacts, want 2", n)
	}
	// A name that is taken is refused before the ticket is used.
	dave := start(t, opts{})
	ticket := dave.invite(api.InviteArgs{For: "bob"})
	bob.addRefused(api.CodeConflict, "alice", ticket)
	wantNames(t, "contacts of dave", dave.contacts())
}

// A name that cannot be one is refused before the ticket is used.
func TestTicketIsNotUsedForABadName(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := start(t, opts{}), start(t, opts{})
	ticket := alice.invite(api.InviteArgs{For: "bob"})
	for _, name := range []string{"", "two words", api.TargetSelf, api.WhoContacts, api.WhoAnyone, p2ptest.Key(t).ID().String()} {
		bob.addRefused(api.CodeBadRequest, name, ticket)
		wantNames(t, "contacts of alice after the name "+name, alice.contacts())
	}
	bob.add("alice", ticket)
}

func TestTicketOfAnUnreachableInviter(t *testing.T) {
	testutil.LeakCheck(t)
	tcp := opts{config: "quic = false\n"} // which is refused at once
	alice, bob := start(t, tcp), start(t, tcp)
	ticket := alice.invite(api.InviteArgs{For: "bob"})
	alice.stop()
	bob.addRefused(api.CodePeerUnreachable, "alice", ticket)
	if p := bob.status().Peers; len(p) != 0 {
		t.Errorf("a node is known: %+v", p)
	}
	alice = start(t, opts{home: alice.home, config: tcp.config})
	eventually(t, "the ticket is good again", func() bool {
		return bob.c.Verb(limited(t), api.VerbContactAdd, api.ContactAddArgs{Name: "alice", Ticket: ticket}, nil) == nil
	})
	wantNames(t, "contacts of alice", alice.contacts(), "bob")
}

func TestInviteBounds(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	in := verb[api.Invitation](t, d.c, api.VerbContactInvite, api.InviteArgs{})
	if left := time.Until(in.Expires); left < 23*time.Hour || left > 24*time.Hour {
		t.Errorf("a ticket lives %v", left)
	}
	if in.Public || in.Warning == "" || len(in.Addresses) == 0 {
		t.Errorf("a ticket of loopback addresses: %+v", in)
	}
	for _, a := range in.Addresses {
		if strings.Contains(a, "/p2p/") {
			t.Errorf("the address %s repeats the node's id", a)
		}
	}
	for _, s := range []int64{-1, 30*24*3600 + 1, 1 << 62} {
		refused(t, d.c, api.CodeBadRequest, api.VerbContactInvite, api.InviteArgs{Expires: s})
	}
	for _, name := range []string{api.TargetSelf, api.WhoAnyone, "-x"} {
		refused(t, d.c, api.CodeBadRequest, api.VerbContactInvite, api.InviteArgs{For: name})
	}
}
