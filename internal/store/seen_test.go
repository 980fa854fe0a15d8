package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// view is all that owner is told of where its contact who lives.
func view(s *Store, owner, who identity.ID, nodes ...identity.ID) string {
	var b bytes.Buffer
	fmt.Fprintln(&b, s.Nodes(owner, who))
	for _, d := range s.Delegations(owner, who) {
		fmt.Fprintln(&b, d.Node, d.Issued)
	}
	for _, node := range nodes {
		fmt.Fprintln(&b, s.ContactsAt(owner, node), s.AddressesFor(owner, who, node))
	}
	return b.String()
}

// What an owner knows of a contact's nodes tells nothing of whose contact it is
// besides.
func TestOwnersSeeOnlyWhatTheyLearned(t *testing.T) {
	s, ctx := open(t), t.Context()
	me, you, bob, nobody := id(1), id(2), id(10), id(11)
	now := delegation(bob, bob, 1).Issued
	s.now = func() time.Time { return now }
	must(t, s.AddContact(ctx, NewContact{Owner: me, ID: bob, Name: "bob", Node: id(22), Address: "/mine",
		Delegation: delegation(bob, id(20), 1), Addresses: []string{"/a"}}))
	must(t, s.PutDelegation(ctx, me, delegation(bob, id(21), 1)))

	add(t, s, you, "bob", bob)
	want := view(s, you, nobody, id(20), id(21), id(22))
	if got := view(s, you, bob, id(20), id(21), id(22)); got != want {
		t.Errorf("another's contact shows\n%s\none that nobody has\n%s", got, want)
	}
	// Naming a node brings nothing of what others know of it.
	hintAt(t, s, you, bob, id(22), "/yours")
	hintAt(t, s, you, bob, id(20), "/yours")
	if got := s.Delegations(you, bob); len(got) != 0 {
		t.Errorf("by a hint came %+v", got)
	}
	for _, node := range []identity.ID{id(20), id(22)} {
		if got := s.AddressesFor(you, bob, node); !slices.Equal(got, []string{"/yours"}) {
			t.Errorf("shown %q", got)
		}
	}

	// You see it too: of all that is known of it just this node.
	must(t, s.PutDelegation(ctx, you, delegation(bob, id(20), 0)))
	if got := s.Delegations(you, bob); len(got) != 1 || got[0].Node != id(20) || !got[0].Issued.Equal(now) {
		t.Errorf("%+v, not the newest of the one node", got)
	}
	if got := s.Nodes(you, bob); !slices.Equal(got, []identity.ID{id(20), id(22)}) {
		t.Errorf("%v", got)
	}
	if got := s.AddressesFor(you, bob, id(20)); !slices.Equal(got, []string{"/a", "/yours"}) {
		t.Errorf("%q", got)
	}
	if got := s.ContactsAt(you, id(20)); len(got) != 1 || got[0].Owner != you {
		t.Errorf("%+v", got)
	}
	if got := s.ContactsAt(you, id(21)); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	// Removing one's own leaves the other's.
	before := view(s, me, bob, id(20), id(21), id(22))
	must(t, s.RemoveContact(ctx, you, "bob"))
	if got := view(s, me, bob, id(20), id(21), id(22)); got != before {
		t.Errorf("was\n%s\nis\n%s", before, got)
	}
}

// A revocation counts for all, whoever was sent it.
func TestRevocationIsShared(t *testing.T) {
	s, ctx := open(t), t.Context()
	me, you, bob := id(1), id(2), id(10)
	now := delegation(bob, bob, 2).Issued
	s.now = func() time.Time { return now }
	for _, owner := range []identity.ID{me, you} {
		add(t, s, owner, "bob", bob)
		must(t, s.PutDelegation(ctx, owner, delegation(bob, id(20), 1)))
	}
	short := delegation(bob, id(20), 2)
	short.Expires = now
	must(t, s.PutDelegation(ctx, you, short))
	if got := s.Delegations(me, bob); len(got) != 0 {
		t.Errorf("still given to pick from: %+v", got)
	}
	// Nor does it come back by one who has heard only of the old one.
	must(t, s.PutDelegation(ctx, me, delegation(bob, id(20), 1)))
	if _, expires, ok := s.NewestDelegation(bob, id(20)); !ok || !expires.Equal(now) {
		t.Errorf("ends %v, %v", expires, ok)
	}
}

func TestDelegationOfAnothersContactIsNotKept(t *testing.T) {
	s, ctx := open(t), t.Context()
	me, you, bob := id(1), id(2), id(10)
	add(t, s, me, "bob", bob)
	must(t, s.PutDelegation(ctx, you, delegation(bob, id(20), 1)))
	if s.NodeKnown(id(20)) || len(s.Nodes(me, bob))+len(s.Nodes(you, bob)) != 0 {
		t.Error("kept")
	}
}

// Which node is forgotten for another is not for one owner alone.
func TestForgottenNodeIsSeenByNobody(t *testing.T) {
	s, ctx := open(t), t.Context()
	me, you, bob := id(1), id(2), id(10)
	add(t, s, me, "bob", bob)
	add(t, s, you, "bob", bob)
	must(t, s.PutDelegation(ctx, you, delegation(bob, id(100), 1)))
	for n := range maxNodes {
		must(t, s.PutDelegation(ctx, me, delegation(bob, id(101+n), 2+n)))
	}
	if got := s.Nodes(you, bob); len(got) != 0 {
		t.Errorf("%v is seen without a delegation", got)
	}
	if rows := seenRows(t, s, me) + seenRows(t, s, you); rows != maxNodes {
		t.Errorf("%d rows for %d nodes", rows, maxNodes)
	}
}

// seenRows counts what is on the disk, of which a load takes only what it needs.
func seenRows(t testing.TB, s *Store, owner identity.ID) (n int) {
	t.Helper()
	must(t, s.db.View(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRowContext(t.Context(), "SELECT count(*) FROM seen WHERE owner = ?", owner[:]).Scan(&n)
	}))
	return n
}

// What is known costs no write: who sends the same again waits for no writer.
func TestKnownDelegationCostsNothing(t *testing.T) {
	s := open(t)
	me, bob := id(1), id(10)
	add(t, s, me, "bob", bob)
	d := delegation(bob, id(20), 2)
	must(t, s.PutDelegation(t.Context(), me, d))
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a write would fail
	for what, known := range map[string]*identity.Delegation{
		"the same": d, "an older one": delegation(bob, id(20), 1), "a stranger's": delegation(id(11), id(20), 1),
	} {
		if err := s.PutDelegation(ctx, me, known); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, news := range map[string]error{
		"a newer one":  s.PutDelegation(ctx, me, delegation(bob, id(20), 3)),
		"another node": s.PutDelegation(ctx, me, delegation(bob, id(21), 1)),
	} {
		if news == nil {
			t.Errorf("%s was taken for known", what)
		}
	}
}

// A row that a damaged file left alone does no harm.
func TestSeenWithoutItsDelegation(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir)
	ctx, me, bob := t.Context(), id(1), id(10)
	add(t, s, me, "bob", bob)
	must(t, s.db.Update(ctx, func(tx *sql.Tx) error {
		for _, who := range []identity.ID{bob, id(11)} {
			if _, err := tx.ExecContext(ctx, "INSERT INTO seen (owner, id, node) VALUES (?, ?, ?)", me[:], who[:], column(id(20))); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, s.Close())
	s = openAt(t, dir)
	if got := s.Nodes(me, bob); len(got) != 0 {
		t.Errorf("%v", got)
	}
	must(t, s.PutDelegation(ctx, me, delegation(bob, id(20), 1)))
	if got := s.Nodes(me, bob); !slices.Equal(got, []identity.ID{id(20)}) {
		t.Errorf("%v", got)
	}
}
