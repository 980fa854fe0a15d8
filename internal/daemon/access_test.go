package daemon

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

func TestContactsGetNoShellUnlessGranted(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	shell := func() error {
		_, err := alice.c.Stream(limited(t), to("bob", api.ProtocolShell, nil))
		return err
	}
	e := wantCode(t, shell(), api.CodeRefused)
	wantText(t, e.Message, "Shell is not granted to you")
	wantText(t, e.Hint, "fastn grant add YOU Shell")

	for _, who := range []string{"alice", api.WhoContacts, api.WhoAnyone} {
		// The hint, as bob would follow it.
		verb[api.Grant](t, bob.c, api.VerbGrantAdd, api.GrantArgs{Who: who, Protocol: api.ProtocolShell})
		wantCode(t, shell(), api.CodeProtocolUnavailable)
		verb[struct{}](t, bob.c, api.VerbGrantRemove, api.GrantArgs{Who: who, Protocol: api.ProtocolShell})
		wantCode(t, shell(), api.CodeRefused)
	}
	// Contacts may offer files; nobody takes the offer for now.
	_, err := alice.c.Call(limited(t), to("bob", api.ProtocolFileTransfer, nil))
	wantCode(t, err, api.CodeProtocolUnavailable)
	// A program of one's own under a known name is no default.
	_, err = alice.c.Call(limited(t), client.Request{Target: "bob", Protocol: api.ProtocolEcho, Instance: "other"})
	wantCode(t, err, api.CodeRefused)
}

func TestAccessWhyNamesTheRule(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	stranger, friend := p2ptest.Key(t).ID().String(), p2ptest.Key(t).ID().String()
	verb[api.Contact](t, d.c, api.VerbContactAdd, api.ContactAddArgs{Name: "friend", ID: friend})
	grant := func(who, protocol string) {
		verb[api.Grant](t, d.c, api.VerbGrantAdd, api.GrantArgs{Who: who, Protocol: protocol})
	}
	grant("friend", "one/1")
	grant(api.WhoContacts, "many/1")
	grant(api.WhoAnyone, "all/1")
	grant(api.WhoContacts, "both/1")
	grant(api.WhoAnyone, "both/1")
	check := func(who, protocol string, allowed bool, rule string) {
		t.Helper()
		got := verb[api.Decision](t, d.c, api.VerbAccessWhy, api.GrantArgs{Who: who, Protocol: protocol})
		if got.Allowed != allowed || got.Rule != rule || got.Detail == "" {
			t.Errorf("why %s %s: %+v; want %v by %q", who, protocol, got, allowed, rule)
		}
	}
	for _, c := range []struct {
		who, protocol string
		allowed       bool
		rule          string
	}{
		{"friend", "one/1", true, "grant"},
		{"friend", "many/1", true, "contacts"},
		{"friend", "all/1", true, "anyone"},
		{"friend", "both/1", true, "contacts"},
		{"friend", api.ProtocolEcho, true, "contact default"},
		{"friend", api.ProtocolShell, false, "default deny"},
		{friend, "one/1", true, "grant"},
		{stranger, "one/1", false, "default deny"},
		{stranger, "many/1", false, "default deny"},
		{stranger, "all/1", true, "anyone"},
		{stranger, api.ProtocolEcho, false, "default deny"},
		{api.WhoContacts, "one/1", false, "default deny"},
		{api.WhoContacts, "many/1", true, "contacts"},
		{api.WhoContacts, "all/1", true, "anyone"},
		{api.WhoContacts, "both/1", true, "contacts"},
		{api.WhoContacts, api.ProtocolEcho, true, "contact default"},
		{api.WhoAnyone, "many/1", false, "default deny"},
		{api.WhoAnyone, "all/1", true, "anyone"},
		{api.TargetSelf, api.ProtocolShell, true, "owner"},
	} {
		check(c.who, c.protocol, c.allowed, c.rule)
	}
	verb[api.Contact](t, d.c, api.VerbContactBlock, api.NameArgs{Name: "friend"})
	check("friend", "one/1", false, "block")
	check("friend", "all/1", false, "block")
	verb[api.Identity](t, d.c, api.VerbIdentityOffline, nil)
	check(stranger, "all/1", false, "offline")
	check("friend", "one/1", false, "block")
}

// introduce makes an identity that lives on a node a contact of d's, which it
// does not know.
func introduce(t testing.TB, d *testDaemon, name, id string, at *testDaemon) {
	t.Helper()
	verb[api.Contact](t, d.c, api.VerbContactAdd, api.ContactAddArgs{Name: name, ID: id, Address: at.status().Node.Addresses[0]})
}

// Whatever the truth behind it, a stranger reads the same bytes.
func TestStrangersReadOneAnswer(t *testing.T) {
	testutil.LeakCheck(t)
	unhurried := "[budgets]\nper_peer_refused_opens = 1000\nper_node_refused_opens = 1000\nper_address_refused_opens = 1000\n"
	bob, carol := start(t, opts{config: unhurried}), start(t, opts{})
	introduce(t, carol, "bob", bob.own().ID52, bob)
	introduce(t, carol, "nobody", p2ptest.Key(t).ID().String(), bob)
	line := func(kind, target, protocol string) string {
		return carol.raw().ask(`{"id":"1","type":"` + kind + `","target":"` + target + `","protocol":"` + protocol + `"}`)
	}
	want := string(api.AppendError(nil, "1", false, api.Refusal()))
	ask := func(what string) {
		for _, kind := range []string{"call", "stream"} {
			for _, c := range [][2]string{{"bob", "Echo"}, {"bob", "Shell"}, {"bob", "absent/1"}, {"nobody", "Echo"}} {
				if got := line(kind, c[0], c[1]); got != want {
					t.Errorf("%s, %s of %s %s: %s", what, kind, c[0], c[1], got)
				}
			}
		}
	}
	ask("strangers")
	if n := bob.status().Node.RefusedOpens; n < 8 {
		t.Errorf("of 8 refused opens the status tells %d", n)
	}
	// With a grant carol learns where bob lives, and no more.
	verb[api.Grant](t, bob.c, api.VerbGrantAdd, api.GrantArgs{Who: api.WhoAnyone, Protocol: "public/1"})
	ask("granted another protocol")
	_, err := carol.c.Call(limited(t), to("bob", "public/1", nil))
	wantCode(t, err, api.CodeProtocolUnavailable)
	// A block takes even that.
	verb[api.Contact](t, bob.c, api.VerbContactBlock, api.NameArgs{Name: carol.own().ID52})
	if got := line("call", "bob", "public/1"); got != want {
		t.Errorf("blocked: %s", got)
	}
}

// stranger is a node without a daemon, that says to another what it likes.
type stranger struct {
	t    testing.TB
	host *p2p.Host
	at   identity.ID
}

func newStranger(t testing.TB, at *testDaemon) *stranger {
	t.Helper()
	book := p2ptest.NewBook()
	host := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), func(o *p2p.Options) { o.Book = book })
	node, err := identity.ParseID(at.status().Node.ID)
	if err != nil {
		t.Fatal(err)
	}
	book.Add(node, at.status().Node.Addresses...)
	return &stranger{t, host, node}
}

// delegation is one of a new identity, to the stranger's own node.
func (s *stranger) delegation(c *clock) []byte {
	s.t.Helper()
	d, err := identity.Delegate(p2ptest.Key(s.t), s.host.Node(), c.now(), patience)
	if err != nil {
		s.t.Fatal(err)
	}
	return d.Raw
}

func (s *stranger) say(f *wire.Frame) *wire.Reply {
	s.t.Helper()
	reply, _, err := s.host.Request(limited(s.t), s.at, f, nil)
	if err != nil {
		s.t.Fatal(full(err))
	}
	return reply
}

func openFrame(from []byte, to identity.ID, protocol string) *wire.Frame {
	return &wire.Frame{Body: &wire.Frame_Open{Open: &wire.Open{From: from, To: to[:], Protocol: protocol,
		Instance: api.DefaultInstance, Kind: wire.Kind_KIND_CALL}}}
}

// A node that asks without Whois learns no more.
func TestStrangersReadOneAnswerOnTheWire(t *testing.T) {
	testutil.LeakCheck(t)
	bob := start(t, opts{})
	bobID, err := identity.ParseID(bob.own().ID52)
	if err != nil {
		t.Fatal(err)
	}
	nobody := p2ptest.Key(t).ID()
	s := newStranger(t, bob)
	from := s.delegation(new(clock))
	want, err := proto.Marshal(wire.ReplyError(api.Refusal()))
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*wire.Frame{
		"no grant":           openFrame(from, bobID, api.ProtocolShell),
		"a contact's right":  openFrame(from, bobID, api.ProtocolEcho),
		"absent protocol":    openFrame(from, bobID, "absent/1"),
		"no protocol's name": openFrame(from, bobID, "two words"),
		"absent identity":    openFrame(from, nobody, api.ProtocolEcho),
		"Whois":              {Body: &wire.Frame_Whois{Whois: &wire.Whois{From: from, To: bobID[:]}}},
		"Whois of nobody":    {Body: &wire.Frame_Whois{Whois: &wire.Whois{From: from, To: nobody[:]}}},
		"a guessed ticket":   {Body: &wire.Frame_Redeem{Redeem: &wire.Redeem{From: from, To: bobID[:], Secret: make([]byte, 32)}}},
		"ticket of nobody":   {Body: &wire.Frame_Redeem{Redeem: &wire.Redeem{From: from, To: nobody[:], Secret: make([]byte, 32)}}},
		"no delegation":      openFrame([]byte("nonsense"), bobID, api.ProtocolEcho),
		"another node's":     openFrame(newStranger(t, bob).delegation(new(clock)), bobID, api.ProtocolEcho),
	} {
		got, err := proto.Marshal(s.say(f))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s: a stranger is told %q, not %q", name, got, want)
		}
	}
}

// One stranger who sends nonsense must not keep others from using their tickets.
func TestStrangersDoNotUseUpEachOthersRate(t *testing.T) {
	testutil.LeakCheck(t)
	bob, carol := start(t, opts{}), start(t, opts{})
	bobID, err := identity.ParseID(bob.own().ID52)
	if err != nil {
		t.Fatal(err)
	}
	ticket := bob.invite(api.InviteArgs{})
	s := newStranger(t, bob)
	for range 40 {
		s.say(openFrame([]byte("nonsense"), bobID, api.ProtocolEcho))
	}
	verb[api.Contact](t, carol.c, api.VerbContactAdd, api.ContactAddArgs{Name: "bob", Ticket: ticket})
}

// What is open ends on both sides when what allowed it is withdrawn, by either.
func TestWithdrawalEndsWhatIsOpen(t *testing.T) {
	name := func(n string) api.NameArgs { return api.NameArgs{Name: n} }
	for _, c := range []struct {
		what      string
		verb      string
		args      any
		byAlice   bool     // who opened the stream
		near, far api.Code // as alice's and bob's programs are told
	}{
		{"bob blocks", api.VerbContactBlock, name("alice"), false, api.CodeRefused, api.CodeRefused},
		{"bob removes", api.VerbContactRemove, name("alice"), false, api.CodeRefused, api.CodeRefused},
		{"bob takes the grant", api.VerbGrantRemove, api.GrantArgs{Who: api.WhoContacts, Protocol: "pipe"}, false, api.CodeRefused, api.CodeRefused},
		{"bob goes offline", api.VerbIdentityOffline, nil, false, api.CodeOffline, api.CodeOffline},
		{"alice blocks", api.VerbContactBlock, name("bob"), true, api.CodeNotPermitted, api.CodeNotPermitted},
		{"alice removes", api.VerbContactRemove, name("bob"), true, api.CodeNotPermitted, api.CodeNotPermitted},
	} {
		t.Run(c.what, func(t *testing.T) {
			testutil.LeakCheck(t)
			alice, bob := pair(t)
			streams, _ := grantPipe(t, bob)
			near, far := openPipe(t, alice, "bob", streams)
			who := bob
			if c.byAlice {
				who = alice
			}
			if err := who.c.Verb(limited(t), c.verb, c.args, nil); err != nil {
				t.Fatal(full(err))
			}
			wantEnded(t, "near", near, c.near)
			wantEnded(t, "far", far, c.far)
		})
	}
}

func TestRemovedIdentityEndsWhatIsOpen(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	streams, _ := grantPipe(t, bob)
	near, far := openPipe(t, alice, "bob", streams)
	verb[struct{}](t, bob.c, api.VerbIdentityRemove, api.IdentityArgs{Identity: bob.own().Name})
	wantEnded(t, "near", near, api.CodeRefused)
	wantEnded(t, "far", far, api.CodeRefused)
}
