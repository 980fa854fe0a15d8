package store

import (
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// One whom all have blocked that have it as a contact is trusted no more, nor is its
// node, until one of them ends that; what is known of the node stays. Each step is
// also read again from the disk.
func TestBlockedContactsAreNotTrusted(t *testing.T) {
	dir := t.TempDir()
	s, ctx := openAt(t, dir), t.Context()
	me, you, bob, node, named := id(1), id(2), id(10), id(20), id(21)
	must(t, s.SetIdentity(ctx, me, 1, "me", true))
	must(t, s.SetIdentity(ctx, you, 2, "you", true))
	for _, step := range []struct {
		what    string
		do      func() error
		trusted bool
	}{
		{"nothing", func() error { return nil }, false},
		{"a block of a stranger", func() error { return s.Block(ctx, me, bob) }, false},
		{"a contact that is blocked", func() error {
			return s.AddContact(ctx, NewContact{Owner: me, ID: bob, Name: "bob", Delegation: delegation(bob, node, 1),
				Addresses: []string{"/a"}, Node: named, Address: "/b"})
		}, false},
		{"unblocked", func() error { return s.Unblock(ctx, me, bob) }, true},
		{"blocked", func() error { return s.Block(ctx, me, bob) }, false},
		{"somebody else's contact", func() error { return s.AddContact(ctx, NewContact{Owner: you, ID: bob, Name: "b"}) }, true},
		{"blocked by both", func() error { return s.Block(ctx, you, bob) }, false},
		{"renamed", func() error { return s.RenameContact(ctx, you, "b", "bob") }, false},
		{"removed, the block stays", func() error { return s.RemoveContact(ctx, you, "bob") }, false},
		{"added again", func() error { return s.AddContact(ctx, NewContact{Owner: you, ID: bob, Name: "b"}) }, false},
		{"unblocked by one", func() error { return s.Unblock(ctx, you, bob) }, true},
		{"that one is gone", func() error { return s.RemoveIdentity(ctx, you) }, false},
		{"unblocked again", func() error { return s.Unblock(ctx, me, bob) }, true},
		{"removed", func() error { return s.RemoveContact(ctx, me, "bob") }, false},
	} {
		must(t, step.do())
		known := step.what != "nothing" && step.what != "a block of a stranger" && step.what != "removed"
		check := func(when string, s *Store) {
			t.Helper()
			if got := s.Trusted(bob); got != step.trusted {
				t.Errorf("%s%s: trusted is %v", step.what, when, got)
			}
			for _, n := range []identity.ID{node, named} {
				if got := s.NodeTrusted(n); got != step.trusted {
					t.Errorf("%s%s: the node is trusted: %v", step.what, when, got)
				}
				if s.NodeKnown(n) != known || (len(s.Addresses(n)) > 0) != known {
					t.Errorf("%s%s: the node is known: %v, at %v", step.what, when, s.NodeKnown(n), s.Addresses(n))
				}
			}
			checkTrust(t, s)
		}
		check("", s)
		must(t, s.Close())
		s = openAt(t, dir)
		check(", from the disk", s)
	}
}

// A node is trusted for the one who lives there and is not blocked; who moves away, or
// is forgotten there, takes that along.
func TestOneWhoIsNotBlockedHasTheNodeTrusted(t *testing.T) {
	s, ctx := open(t), t.Context()
	me, foe, friend, node := id(1), id(10), id(11), id(20)
	add(t, s, me, "foe", foe)
	add(t, s, me, "friend", friend)
	must(t, s.PutDelegation(ctx, me, delegation(foe, node, 1)))
	must(t, s.PutDelegation(ctx, me, delegation(friend, node, 1)))
	must(t, s.Block(ctx, me, foe))
	if s.Trusted(foe) || !s.Trusted(friend) || !s.NodeTrusted(node) {
		t.Error("the foe takes the node from the friend")
	}
	for n := range maxNodes { // as many newer ones, so that this one is forgotten
		must(t, s.PutDelegation(ctx, me, delegation(friend, id(100+n), 2+n)))
	}
	if !s.NodeKnown(node) || s.NodeTrusted(node) || !s.NodeTrusted(id(100)) {
		t.Error("a node is trusted for one who lives there no more")
	}
	checkTrust(t, s)
}

// checkTrust fails t unless the indexes say what contacts, blocks and nodes do.
func checkTrust(t *testing.T, s *Store) {
	t.Helper()
	st := s.state
	welcome := func(who identity.ID) bool {
		for owner, o := range st.owners {
			if c := o.contacts[who]; c != nil && !s.Blocked(owner, who) {
				return true
			}
		}
		return false
	}
	for n := range 300 {
		if who := id(n); s.Trusted(who) != welcome(who) {
			t.Errorf("%d is trusted: %v", n, s.Trusted(who))
		}
		trusted := false
		for who := range st.nodeOf[id(n)] {
			trusted = trusted || welcome(who)
		}
		if s.NodeTrusted(id(n)) != trusted {
			t.Errorf("node %d is trusted: %v", n, s.NodeTrusted(id(n)))
		}
	}
}
