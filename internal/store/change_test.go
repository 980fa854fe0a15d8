package store

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// Each change is told once, after look-ups see it, and only if it is one.
func TestChanges(t *testing.T) {
	s, ctx := open(t), t.Context()
	me, bob := id(1), id(10)
	var got []Change
	check := func() {} // what look-ups must say when the change is told
	s.OnChange(func(c Change) { got = append(got, c); check() })

	addGrant := func(who Who) error { _, err := s.AddGrant(ctx, me, who, "P", ""); return err }
	contact := Change{Owner: me, Who: bob, Name: "bob"}
	as := func(c Change, k ChangeKind) Change { c.Kind = k; return c }
	grant := contact
	grant.Protocol, grant.Instance = "P", "default"
	for _, step := range []struct {
		name string
		do   func() error
		seen func() bool
		want []Change
	}{
		{"new identity", func() error { return s.SetIdentity(ctx, me, 7, "al", true) },
			func() bool { _, ok := s.IdentityInfo(me); return ok }, []Change{{Owner: me, Kind: IdentityAdded, Name: "al"}}},
		{"same identity", func() error { return s.SetIdentity(ctx, me, 7, "al", true) }, nil, nil},
		{"offline", func() error { return s.SetIdentity(ctx, me, 7, "al", false) },
			func() bool { i, _ := s.IdentityInfo(me); return !i.Online }, []Change{{Owner: me, Kind: IdentityOffline, Name: "al"}}},
		{"online", func() error { return s.SetIdentity(ctx, me, 7, "al", true) }, nil, []Change{{Owner: me, Kind: IdentityOnline, Name: "al"}}},
		{"rename", func() error { return s.SetIdentity(ctx, me, 7, "el", true) }, nil, []Change{{Owner: me, Kind: IdentityRenamed, Name: "el"}}},
		{"other uid", func() error { return s.SetIdentity(ctx, me, 8, "el", true) }, nil, []Change{{Owner: me, Kind: IdentityOffline, Name: "el"}}},
		{"contact", func() error { return s.AddContact(ctx, NewContact{Owner: me, ID: bob, Name: "bob"}) },
			func() bool { return s.Trusted(bob) }, []Change{as(contact, ContactAdded)}},
		{"contact again", func() error { _ = s.AddContact(ctx, NewContact{Owner: me, ID: bob, Name: "bob"}); return nil }, nil, nil},
		{"grant", func() error { return addGrant(WhoContact(bob)) },
			func() bool { return s.GrantedAny(me, bob) }, []Change{as(grant, GrantAdded)}},
		{"grant again", func() error { return addGrant(WhoContact(bob)) }, nil, nil},
		{"grant to contacts", func() error { return addGrant(WhoContacts()) }, nil,
			[]Change{{Owner: me, Kind: GrantAdded, Name: "contacts", Protocol: "P", Instance: "default"}}},
		{"no grant", func() error { return s.RemoveGrant(ctx, me, WhoContacts(), "P", "") },
			nil, []Change{{Owner: me, Kind: GrantRemoved, Name: "contacts", Protocol: "P", Instance: "default"}}},
		{"no grant to bob", func() error { return s.RemoveGrant(ctx, me, WhoContact(bob), "P", "") },
			func() bool { return !s.GrantedAny(me, bob) }, []Change{as(grant, GrantRemoved)}},
		{"block", func() error { return s.Block(ctx, me, bob) },
			func() bool { return s.Blocked(me, bob) }, []Change{as(contact, ContactBlocked)}},
		{"block again", func() error { return s.Block(ctx, me, bob) }, nil, nil},
		{"unblock", func() error { return s.Unblock(ctx, me, bob) }, nil, []Change{as(contact, ContactUnblocked)}},
		{"what is no rule", func() error { return s.PutDelegation(ctx, me, delegation(bob, id(20), 1)) }, nil, nil},
		{"removal", func() error { return s.RemoveContact(ctx, me, "bob") },
			func() bool { return !s.Trusted(bob) }, []Change{as(contact, ContactRemoved)}},
		{"invite", func() error { return s.AddInvite(ctx, me, hashOf(secret(1)), "bob", far) }, nil, nil},
		{"redeem", func() error { _, _, err := s.Redeem(ctx, me, secret(1), bob, soon); return err },
			func() bool { return s.Trusted(bob) }, []Change{as(contact, ContactAdded)}},
		{"no identity", func() error { return s.RemoveIdentity(ctx, me) },
			func() bool { return !s.Trusted(bob) }, []Change{{Owner: me, Kind: IdentityRemoved, Name: "el"}}},
	} {
		got = nil
		check = func() {
			if step.seen != nil && !step.seen() {
				t.Errorf("%s: told before look-ups see it", step.name)
			}
		}
		must(t, step.do())
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: got %+v, want %+v", step.name, got, step.want)
		}
	}
}

func TestWithdraws(t *testing.T) {
	want := map[ChangeKind]bool{
		IdentityRemoved: true, IdentityOffline: true, ContactRemoved: true, ContactBlocked: true, GrantRemoved: true,
	}
	for k := IdentityAdded; k <= GrantRemoved; k++ {
		if k.Withdraws() != want[k] {
			t.Errorf("kind %d: %v", k, k.Withdraws())
		}
	}
}

// Look-ups beside writers see each change whole: a contact and its grant.
func TestReadersBesideWriters(t *testing.T) {
	s, ctx := open(t), t.Context()
	me := id(1)
	s.OnChange(func(c Change) { s.Contact(c.Owner, c.Who) })
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, c := range s.Contacts(me) {
					s.Granted(me, c.ID, "P", "default")
					s.ContactsAt(me, id(20))
					s.Addresses(id(20))
				}
				for _, g := range s.Grants(me) {
					if g.Name == g.Who.String() && g.Who != WhoAnyone() {
						t.Error("a grant is seen without its contact")
					}
				}
			}
		})
	}
	for n := range 4 {
		writers.Go(func() {
			who, name := id(10+n), fmt.Sprintf("c%d", n)
			for range 10 {
				must := func(err error) {
					if err != nil {
						t.Error(err)
					}
				}
				must(s.AddContact(ctx, NewContact{Owner: me, ID: who, Name: name, Delegation: delegation(who, id(20), n), Addresses: []string{name}}))
				_, err := s.AddGrant(ctx, me, WhoContact(who), "P", "")
				must(err)
				must(s.RemoveContact(ctx, me, name))
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if len(s.Contacts(me))+len(s.Grants(me))+len(s.KnownNodes()) != 0 {
		t.Error("something is left")
	}
}

func BenchmarkGranted(b *testing.B) {
	s := open(b)
	owner, who := id(1), id(2)
	must(b, s.AddContact(b.Context(), NewContact{Owner: owner, ID: who, Name: "bob"}))
	if _, err := s.AddGrant(b.Context(), owner, WhoAnyone(), "P", ""); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, ok := s.Granted(owner, who, "P", "default"); !ok || s.Blocked(owner, who) {
				b.Error("refused")
			}
		}
	})
}

func BenchmarkAddContact(b *testing.B) {
	s := open(b)
	for n := 0; b.Loop(); n++ {
		must(b, s.AddContact(b.Context(), NewContact{Owner: id(1), ID: id(2 + n), Name: fmt.Sprintf("c%d", n)}))
	}
}
