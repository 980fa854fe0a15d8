package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

var _ identity.Newest = (*Store)(nil)

func TestDelegations(t *testing.T) {
	s, ctx := open(t), t.Context()
	who := id(10)
	now := delegation(who, who, 10).Issued
	s.now = func() time.Time { return now }
	me := id(1)
	put := func(d *identity.Delegation) { t.Helper(); must(t, s.PutDelegation(ctx, me, d)) }

	put(delegation(who, id(20), 1)) // of a stranger
	if s.NodeKnown(id(20)) || len(s.Delegations(me, who)) != 0 {
		t.Error("a stranger's delegation is kept")
	}
	add(t, s, me, "bob", who)
	put(delegation(who, id(20), 1))
	put(delegation(who, id(21), 3))
	put(delegation(who, id(22), 2))
	var nodes []identity.ID
	for _, d := range s.Delegations(me, who) {
		nodes = append(nodes, d.Node)
	}
	if !slices.Equal(nodes, []identity.ID{id(21), id(22), id(20)}) {
		t.Errorf("not the newest first: %v", nodes)
	}

	// The newest of a node stays, even if it ends earlier: so it revokes.
	revoking := delegation(who, id(21), 5)
	revoking.Expires = revoking.Issued.Add(time.Minute)
	put(revoking)
	put(delegation(who, id(21), 4))
	issued, expires, ok := s.NewestDelegation(who, id(21))
	if !ok || !issued.Equal(revoking.Issued) || !expires.Equal(revoking.Expires) {
		t.Errorf("%v %v %v", issued, expires, ok)
	}
	if list := s.Delegations(me, who); len(list) != 2 || list[0].Node != id(22) {
		t.Errorf("an expired one is given to pick from: %+v", list)
	}
	same := *revoking
	same.Expires = revoking.Expires.Add(-time.Second)
	put(&same)
	put(revoking)
	if _, expires, _ := s.NewestDelegation(who, id(21)); !expires.Equal(same.Expires) {
		t.Errorf("of two of the same µs the longer counts: %v", expires)
	}
	if !slices.Equal(s.Nodes(me, who), []identity.ID{id(21), id(22), id(20)}) {
		t.Error("Nodes forgets those whose delegation expired")
	}
	if _, _, ok := s.NewestDelegation(who, id(23)); ok {
		t.Error("a delegation came from nowhere")
	}
}

func TestNodesOfAnIdentityAreBounded(t *testing.T) {
	s := open(t)
	add(t, s, id(1), "bob", id(10))
	for n := range maxNodes + 3 {
		must(t, s.PutDelegation(t.Context(), id(1), delegation(id(10), id(100+n), n+1)))
		must(t, s.SetAddresses(t.Context(), id(100+n), []string{"/a"}))
	}
	if n := len(s.Nodes(id(1), id(10))); n != maxNodes {
		t.Errorf("%d nodes are known", n)
	}
	for n, want := range map[int]bool{100: false, 102: false, 103: true, 100 + maxNodes + 2: true} {
		if s.NodeKnown(id(n)) != want || (len(s.Addresses(id(n))) > 0) != want {
			t.Errorf("node %d: known is %v", n, !want)
		}
	}
}

func TestAddresses(t *testing.T) {
	s, ctx := open(t), t.Context()
	must(t, s.SetAddresses(ctx, id(20), []string{"/a"}))
	if s.NodeKnown(id(20)) || len(s.Addresses(id(20))) != 0 {
		t.Error("addresses of an unknown node are kept")
	}
	must(t, s.AddContact(ctx, NewContact{
		Owner: id(1), ID: id(10), Name: "bob",
		Delegation: delegation(id(10), id(20), 1), Addresses: []string{"/a", "/b"},
	}))
	if got := s.Addresses(id(20)); !slices.Equal(got, []string{"/a", "/b"}) {
		t.Errorf("%v", got)
	}
	var many []string
	for n := range 40 {
		many = append(many, fmt.Sprintf("/%02d", n))
	}
	hostile := []string{"", "/x\n/y", "/\x1b[2J", "/\xff", strings.Repeat("x", 257), "/00"}
	must(t, s.SetAddresses(ctx, id(20), append(hostile, many...)))
	if got := s.Addresses(id(20)); !slices.Equal(got, many[:16]) {
		t.Errorf("%q", got)
	}
	s.Addresses(id(20))[0] = "changed"
	if s.Addresses(id(20))[0] != "/00" {
		t.Error("a caller can change what is stored")
	}
	must(t, s.SetAddresses(ctx, id(20), nil))
	if got := s.Addresses(id(20)); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// A ticket is written by whoever gives it away: its addresses do not replace what
// is known of a node that others here need too.
func TestTicketsReplaceNoAddresses(t *testing.T) {
	s, ctx := open(t), t.Context()
	shared := id(20)
	ticket := func(owner, who identity.ID, addresses ...string) NewContact {
		return NewContact{Owner: owner, ID: who, Name: "c-" + who.Short(), Delegation: delegation(who, shared, 1), Addresses: addresses}
	}
	must(t, s.AddContact(ctx, ticket(id(1), id(10), "/first")))
	if got := s.Addresses(shared); !slices.Equal(got, []string{"/first"}) {
		t.Errorf("before anything was learned: %q", got)
	}
	must(t, s.SetAddresses(ctx, shared, []string{"/learned"}))
	must(t, s.AddContact(ctx, ticket(id(2), id(11), "/bogus")))
	if got := s.Addresses(shared); !slices.Equal(got, []string{"/learned"}) {
		t.Errorf("a ticket made it %q", got)
	}
	if got := s.AddressesFor(id(2), id(11), shared); !slices.Equal(got, []string{"/learned"}) {
		t.Errorf("its user is shown %q", got)
	}
}

// hintAt is what AddContact does of a contact's address.
func hintAt(t testing.TB, s *Store, owner, who, node identity.ID, address string) {
	t.Helper()
	must(t, s.write(t.Context(), func(_ *state, p *plan) error { return p.addHint(owner, who, hint{node, address}, s.now()) }))
}

func TestHints(t *testing.T) {
	s, ctx := open(t), t.Context()
	me, you, bob := id(1), id(2), id(10)
	must(t, s.AddContact(ctx, NewContact{Owner: me, ID: bob, Name: "bob", Node: id(20), Address: "/h"}))
	add(t, s, you, "bob", bob)
	hintAt(t, s, me, bob, id(21), "/i")
	for _, bad := range []hint{{id(20), "/x\n"}, {identity.ID{}, "/h"}, {id(20), strings.Repeat("x", 257)}} {
		n := NewContact{Owner: me, ID: id(11), Name: "eve", Node: bad.node, Address: bad.address}
		wantCode(t, s.AddContact(ctx, n), api.CodeBadRequest)
		if _, ok := s.Contact(me, id(11)); ok {
			t.Errorf("added with %+v", bad)
		}
	}

	if got := s.Nodes(me, bob); !slices.Equal(got, []identity.ID{id(20), id(21)}) {
		t.Errorf("%v", got)
	}
	if got := s.Nodes(you, bob); len(got) != 0 {
		t.Errorf("one user's hint sends another's request: %v", got)
	}
	if got := s.ContactsAt(you, id(20)); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	if got := s.ContactsAt(me, id(20)); len(got) != 1 || got[0].Name != "bob" {
		t.Errorf("%+v", got)
	}
	// What was learned does not replace what the user said.
	must(t, s.SetAddresses(ctx, id(20), []string{"/learned"}))
	if got := s.Addresses(id(20)); !slices.Equal(got, []string{"/learned", "/h"}) {
		t.Errorf("%v", got)
	}
	if n := len(s.KnownNodes()); n != 2 {
		t.Errorf("%d nodes are known", n)
	}
}

// What is known of nodes goes with the last who has the contact.
func TestNodesAreForgottenWithTheirContacts(t *testing.T) {
	s, ctx := open(t), t.Context()
	for owner := range 2 {
		add(t, s, id(owner), "bob", id(10))
		must(t, s.PutDelegation(ctx, id(owner), delegation(id(10), id(20), 1)))
	}
	must(t, s.SetAddresses(ctx, id(20), []string{"/a"}))
	hintAt(t, s, id(0), id(10), id(21), "/b")
	if got := s.ContactsAt(id(1), id(20)); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	must(t, s.RemoveContact(ctx, id(0), "bob"))
	if !s.NodeKnown(id(20)) || s.NodeKnown(id(21)) || len(s.Addresses(id(21))) != 0 {
		t.Error("not just the hint of who removed the contact is gone")
	}
	// It comes back without what was known of it.
	add(t, s, id(0), "bob", id(10))
	if got := s.Nodes(id(0), id(10)); len(got) != 0 {
		t.Errorf("a removed contact left %v", got)
	}
	must(t, s.RemoveContact(ctx, id(0), "bob"))
	must(t, s.RemoveContact(ctx, id(1), "bob"))
	if s.NodeKnown(id(20)) || len(s.Addresses(id(20))) != 0 || len(s.KnownNodes()) != 0 {
		t.Error("a node is remembered for nobody")
	}
}
