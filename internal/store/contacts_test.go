package store

import (
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

func TestIdentities(t *testing.T) {
	s, ctx := open(t), t.Context()
	must(t, s.SetIdentity(ctx, id(1), 1000, "alice", true))
	must(t, s.SetIdentity(ctx, id(2), 1000, "work", true))
	must(t, s.SetIdentity(ctx, id(3), 1001, "alice", true)) // unique per uid only

	for n, want := range map[int]Identity{1: {UID: 1000, Name: "alice"}, 2: {UID: 1000, Name: "work"}, 3: {UID: 1001, Name: "alice"}} {
		if i, ok := s.IdentityInfo(id(n)); !ok || i.ID != id(n) || i.UID != want.UID || i.Name != want.Name || !i.Online {
			t.Errorf("%d is %+v, %v", n, i, ok)
		}
	}
	wantCode(t, s.SetIdentity(ctx, id(4), 1000, "work", true), api.CodeConflict)
	wantCode(t, s.SetIdentity(ctx, id(1), 1000, "work", true), api.CodeConflict)
	for _, bad := range []string{"", "self", "a b", "-x", id52(t), strings.Repeat("x", 65)} {
		wantCode(t, s.SetIdentity(ctx, id(5), 1, bad, true), api.CodeBadRequest)
		wantCode(t, s.SetIdentity(ctx, id(1), 1000, bad, true), api.CodeBadRequest)
	}
	if _, ok := s.IdentityInfo(id(5)); ok {
		t.Error("a refused identity was stored")
	}

	must(t, s.SetIdentity(ctx, id(1), 1000, "al", false))
	must(t, s.SetIdentity(ctx, id(2), 1000, "alice", true)) // free again
	if i, ok := s.IdentityInfo(id(1)); !ok || i.Name != "al" || i.Online {
		t.Errorf("%+v", i)
	}
}

// id52 is the text of an ID that some key has.
func id52(t testing.TB) string {
	t.Helper()
	key, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key.ID().String()
}

func TestRemoveIdentityTakesAllOfItsOwn(t *testing.T) {
	s, ctx := open(t), t.Context()
	const owner, other = 1, 2
	for _, o := range []int{owner, other} {
		must(t, s.SetIdentity(ctx, id(o), 1000, string(rune('a'+o)), true))
		add(t, s, id(o), "bob", id(10))
		must(t, s.Block(ctx, id(o), id(11)))
		for _, who := range []Who{WhoContact(id(10)), WhoContacts(), WhoAnyone()} {
			_, err := s.AddGrant(ctx, id(o), who, "P", "")
			must(t, err)
		}
		must(t, s.AddInvite(ctx, id(o), hashOf(secret(o)), "carol", far))
		hintAt(t, s, id(o), id(10), id(20+o), "/a")
		must(t, s.AddContact(ctx, NewContact{
			Owner: id(o), ID: id(30 + o), Name: "dave",
			Delegation: delegation(id(30+o), id(40+o), 1), Addresses: []string{"/d"},
		}))
	}
	must(t, s.RemoveIdentity(ctx, id(owner)))
	wantCode(t, s.RemoveIdentity(ctx, id(owner)), api.CodeNotFound)
	for o, want := range map[int]bool{owner: false, other: true} {
		_, contact := s.Contact(id(o), id(10))
		_, granted := s.Granted(id(o), id(12), "P", "default")
		_, _, err := s.Redeem(ctx, id(o), secret(o), id(12), soon)
		_, info := s.IdentityInfo(id(o))
		for what, got := range map[string]bool{
			"contact": contact, "block": s.Blocked(id(o), id(11)), "grant": granted, "grants": len(s.Grants(id(o))) == 3,
			"invite": err == nil, "node": s.NodeKnown(id(20 + o)), "delegated node": s.NodeKnown(id(40 + o)),
			"addresses": len(s.Addresses(id(40+o))) > 0, "info": info, "hint": len(s.Nodes(id(o), id(10))) == 1,
			"contacts": len(s.Contacts(id(o))) > 0, "seen": len(s.Nodes(id(o), id(30+o))) == 1,
			"seen on disk": seenRows(t, s, id(o)) == 1,
		} {
			if got != want {
				t.Errorf("identity %d: %s is %v, want %v", o, what, got, want)
			}
		}
	}
}

func TestContacts(t *testing.T) {
	s, ctx := open(t), t.Context()
	me, you := id(1), id(2)
	add(t, s, me, "bob", id(10))
	add(t, s, me, "alf", id(11))
	add(t, s, you, "bob", id(11)) // names are each owner's own

	if list := s.Contacts(me); len(list) != 2 || list[0].Name != "alf" || list[1].Name != "bob" || list[1].ID != id(10) || list[1].Added.IsZero() {
		t.Errorf("%+v", list)
	}
	if c, err := s.ContactByName(you, "bob"); err != nil || c.ID != id(11) || c.Owner != you {
		t.Errorf("%+v %v", c, err)
	}
	if name, ok := s.Contact(me, id(10)); !ok || name != "bob" {
		t.Errorf("%q %v", name, ok)
	}
	if _, ok := s.Contact(you, id(10)); ok {
		t.Error("somebody else's contact is seen")
	}
	_, err := s.ContactByName(you, "alf")
	wantCode(t, err, api.CodeNotFound)

	must(t, s.RenameContact(ctx, me, "bob", "rob"))
	must(t, s.RenameContact(ctx, me, "rob", "rob"))
	wantCode(t, s.RenameContact(ctx, me, "bob", "x"), api.CodeNotFound)
	wantCode(t, s.RenameContact(ctx, me, "rob", "alf"), api.CodeConflict)
	wantCode(t, s.RenameContact(ctx, me, "rob", "self"), api.CodeBadRequest)
	wantCode(t, s.RenameContact(ctx, you, "rob", "x"), api.CodeNotFound)
	add(t, s, me, "bob", id(12))
	if c, ok := s.ContactInfo(me, id(10)); !ok || c.Name != "rob" {
		t.Errorf("%+v", c)
	}

	must(t, s.RemoveContact(ctx, me, "rob"))
	wantCode(t, s.RemoveContact(ctx, me, "rob"), api.CodeNotFound)
	if err := s.RemoveContact(ctx, me, strings.Repeat("x", 60_000)); len(err.Error()) > 1000 {
		t.Errorf("an error of %d bytes repeats the name", len(err.Error()))
	}
	if s.Trusted(id(10)) || !s.Trusted(id(11)) {
		t.Error("Trusted is wrong")
	}
}

// An existing contact is never renamed or pointed elsewhere by adding.
func TestAddContactConflicts(t *testing.T) {
	s, ctx := open(t), t.Context()
	me := id(1)
	add(t, s, me, "bob", id(10))
	for _, n := range []NewContact{
		{Owner: me, ID: id(11), Name: "bob"}, // the name is taken
		{Owner: me, ID: id(10), Name: "rob"}, // the id is
		{Owner: me, ID: id(10), Name: "bob"}, // both
	} {
		n.Delegation, n.Addresses = delegation(n.ID, id(20), 1), []string{"/a"}
		n.Node, n.Address = id(21), "/b"
		err := s.AddContact(ctx, n)
		wantCode(t, err, api.CodeConflict)
		if !strings.Contains(err.Error(), `"bob"`) {
			t.Errorf("%v does not name the existing one", err)
		}
		if hint := api.AsError(err).Hint; strings.Contains(hint, "rename bob rob") != (n.Name == "rob") {
			t.Errorf("hint %q", hint)
		}
	}
	if list := s.Contacts(me); len(list) != 1 || list[0].ID != id(10) || list[0].Name != "bob" {
		t.Errorf("%+v", list)
	}
	if s.NodeKnown(id(20)) || s.NodeKnown(id(21)) {
		t.Error("something of a refused contact was kept")
	}
	for _, bad := range []string{"", "self", "contacts", "anyone", "a/b", ".x", id52(t), peerID(t)} {
		wantCode(t, s.AddContact(ctx, NewContact{Owner: me, ID: id(12), Name: bad}), api.CodeBadRequest)
	}
	wantCode(t, s.AddContact(ctx, NewContact{Owner: me, ID: me, Name: "me"}), api.CodeBadRequest)
	// A bad address keeps nothing of the contact either.
	wantCode(t, s.AddContact(ctx, NewContact{Owner: me, ID: id(12), Name: "dave", Node: id(20), Address: "a\nb"}), api.CodeBadRequest)
	if s.Trusted(id(12)) {
		t.Error("half a contact was kept")
	}
}

func peerID(t testing.TB) string {
	t.Helper()
	who, err := identity.ParseID(id52(t))
	must(t, err)
	return who.PeerID().String()
}

func TestBlocks(t *testing.T) {
	s, ctx := open(t), t.Context()
	me := id(1)
	add(t, s, me, "bob", id(10))
	must(t, s.Block(ctx, me, id(10)))
	must(t, s.Block(ctx, me, id(10)))
	must(t, s.Block(ctx, me, id(11))) // no contact
	wantCode(t, s.Block(ctx, me, me), api.CodeBadRequest)

	if !s.Blocked(me, id(10)) || !s.Blocked(me, id(11)) || s.Blocked(me, id(12)) || s.Blocked(id(2), id(10)) {
		t.Error("the wrong ones are blocked")
	}
	if list := s.Contacts(me); len(list) != 1 || !list[0].Blocked {
		t.Errorf("a blocked contact is not listed as such: %+v", list)
	}
	if list := s.Blocks(me); len(list) != 2 || list[0].ID != id(10) || list[0].Name != "bob" || list[1].Name != "" {
		t.Errorf("%+v", list)
	}
	must(t, s.RemoveContact(ctx, me, "bob"))
	if !s.Blocked(me, id(10)) {
		t.Error("removing the contact lifted the block")
	}
	must(t, s.Unblock(ctx, me, id(10)))
	wantCode(t, s.Unblock(ctx, me, id(10)), api.CodeNotFound)
	if s.Blocked(me, id(10)) {
		t.Error("the block is still there")
	}
}

func TestGrants(t *testing.T) {
	s, ctx := open(t), t.Context()
	me := id(1)
	add(t, s, me, "bob", id(10))
	add(t, s, me, "carol", id(11))
	grant := func(who Who, protocol, instance string) {
		t.Helper()
		first, err := s.AddGrant(ctx, me, who, protocol, instance)
		must(t, err)
		again, err := s.AddGrant(ctx, me, who, protocol, instance)
		must(t, err)
		if first != again {
			t.Errorf("granting again changed %+v to %+v", first, again)
		}
	}
	grant(WhoContact(id(10)), "Shell", "")
	grant(WhoContact(id(10)), "Shell", "work")
	grant(WhoContacts(), "Wiki", "")
	grant(WhoAnyone(), "Web", "")

	for _, tt := range []struct {
		who                int
		protocol, instance string
		want               string
	}{
		{10, "Shell", "default", "contact"}, {10, "Shell", "work", "contact"}, {10, "Shell", "x", ""},
		{11, "Shell", "default", ""}, {12, "Shell", "default", ""},
		{10, "Wiki", "default", "contacts"}, {11, "Wiki", "default", "contacts"}, {12, "Wiki", "default", ""},
		{10, "Web", "default", "anyone"}, {12, "Web", "default", "anyone"}, {12, "web", "default", ""},
	} {
		if by, ok := s.Granted(me, id(tt.who), tt.protocol, tt.instance); by != tt.want || ok != (tt.want != "") {
			t.Errorf("%+v: got %q %v", tt, by, ok)
		}
		if _, ok := s.Granted(id(2), id(tt.who), tt.protocol, tt.instance); ok {
			t.Errorf("%+v: another owner's grants count", tt)
		}
	}
	var list []string
	for _, g := range s.Grants(me) {
		list = append(list, g.Name+" "+g.Protocol+" "+g.Instance)
	}
	if got, want := strings.Join(list, ", "), "anyone Web default, bob Shell default, bob Shell work, contacts Wiki default"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}

	_, err := s.AddGrant(ctx, me, WhoContact(id(12)), "Shell", "")
	wantCode(t, err, api.CodeNotFound)
	_, err = s.AddGrant(ctx, me, Who{}, "Shell", "")
	wantCode(t, err, api.CodeNotFound)
	_, err = s.AddGrant(ctx, me, WhoAnyone(), "a b", "")
	wantCode(t, err, api.CodeBadRequest)
	_, err = s.AddGrant(ctx, me, WhoAnyone(), "P", "a b")
	wantCode(t, err, api.CodeBadRequest)

	must(t, s.RemoveGrant(ctx, me, WhoContact(id(10)), "Shell", ""))
	wantCode(t, s.RemoveGrant(ctx, me, WhoContact(id(10)), "Shell", ""), api.CodeNotFound)
	wantCode(t, s.RemoveGrant(ctx, me, WhoAnyone(), "Shell", "work"), api.CodeNotFound)
	if _, ok := s.Granted(me, id(10), "Shell", "default"); ok {
		t.Error("a removed grant counts")
	}

	// Removing a contact removes its grants, for good.
	must(t, s.RemoveContact(ctx, me, "bob"))
	add(t, s, me, "bob", id(10))
	if _, ok := s.Granted(me, id(10), "Shell", "work"); ok {
		t.Error("a grant outlived its contact")
	}
}

func TestGrantedAny(t *testing.T) {
	for name, tt := range map[string]struct {
		who                        Who
		granted, contact, stranger bool
	}{
		"nobody":      {Who{}, false, false, false},
		"one contact": {WhoContact(id(10)), true, false, false},
		"contacts":    {WhoContacts(), true, true, false},
		"anyone":      {WhoAnyone(), true, true, true},
	} {
		s, me := open(t), id(1)
		add(t, s, me, "bob", id(10))
		add(t, s, me, "carol", id(11))
		if tt.who != (Who{}) {
			_, err := s.AddGrant(t.Context(), me, tt.who, "P", "i")
			must(t, err)
		}
		for n, want := range map[int]bool{10: tt.granted, 11: tt.contact, 12: tt.stranger} {
			if s.GrantedAny(me, id(n)) != want {
				t.Errorf("grant to %s: GrantedAny(%d) is %v", name, n, !want)
			}
		}
		if s.GrantedAny(id(2), id(10)) {
			t.Error("another owner's grants count")
		}
	}
}
