package roster

import (
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

func TestDelegationIsRenewed(t *testing.T) {
	d := newDisk()
	r, clock := start(d)
	id := create(t, r, alice, "alice").ID
	v := identity.NewVerifier(nil)
	get := func() *identity.Delegation {
		t.Helper()
		del, err := r.Delegation(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(del.Raw, node, clock.Now()); err != nil {
			t.Error(err)
		}
		return del
	}
	first := get()
	if first.Identity != id || first.Node != node || !first.Expires.Equal(clock.Now().Add(ttl)) {
		t.Errorf("%+v", first)
	}
	clock.move(ttl/2 - time.Microsecond)
	if get() != first {
		t.Error("renewed before half of its life")
	}
	clock.move(time.Microsecond)
	second := get()
	if second == first || !second.Issued.Equal(clock.Now()) {
		t.Error("not renewed at half of its life")
	}
	// The clock was wrong and is set back: the future one would be refused.
	clock.move(-24 * time.Hour)
	third := get()
	if third == second || !third.Issued.Equal(clock.Now()) {
		t.Error("kept one from the future")
	}
	if get() != third {
		t.Error("renewed without need")
	}
	clock.move(ttl * 10)
	if d := get(); !d.Issued.Equal(clock.Now()) {
		t.Error("kept one that has expired")
	}
}

// TestIssueShortensNothing: who sees the delegation of a ticket that ends
// tomorrow must not take it for a revocation of those that live longer.
func TestIssueShortensNothing(t *testing.T) {
	for name, life := range map[string]time.Duration{"short": time.Hour, "long": 3 * ttl} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			r, clock := start(d)
			id := create(t, r, alice, "alice").ID
			v := identity.NewVerifier(nil)
			old, err := r.Delegation(id)
			if err != nil {
				t.Fatal(err)
			}
			clock.move(time.Minute)
			ticket, err := r.Issue(id, life)
			if err != nil || ticket.Expires.Before(clock.Now().Add(life)) {
				t.Fatalf("%+v, %v", ticket, err)
			}
			if now, err := r.Delegation(id); err != nil || now != ticket {
				t.Errorf("in force is %+v, %v", now, err)
			}
			for _, d := range []*identity.Delegation{ticket, old} {
				if _, err := v.Verify(d.Raw, node, clock.Now()); err != nil {
					t.Fatal(err)
				}
			}
			clock.move(ttl/2 - 2*time.Minute) // the ticket is past, nothing is renewed yet
			if _, err := v.Verify(old.Raw, node, clock.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	r, _ := start(newDisk())
	_, err := r.Issue(newKey(t).ID(), time.Hour)
	wantCode(t, err, api.CodeNotFound)
}

// TestRenewalsVoidNoTicket: whichever delegation one has seen since, a ticket can
// be used in its last moment, also where delegations live shorter than tickets.
func TestRenewalsVoidNoTicket(t *testing.T) {
	for name, c := range map[string]struct{ ttl, ticket time.Duration }{
		"month": {ttl, 30 * 24 * time.Hour}, "day": {time.Hour, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			r, clock := start(d)
			r.SetTTL(c.ttl)
			id := create(t, r, alice, "alice").ID
			ticket, err := r.Issue(id, c.ticket)
			if err != nil {
				t.Fatal(err)
			}
			ends := clock.Now().Add(c.ticket)
			d.longest[id] = ends
			for clock.Now().Before(ends) {
				renewed, err := r.Delegation(id)
				if err != nil {
					t.Fatal(err)
				}
				if most := clock.Now().Add(max(c.ttl, ends.Sub(clock.Now()))); renewed.Expires.After(most) {
					t.Fatalf("ends %v after what is needed", renewed.Expires.Sub(most))
				}
				v := identity.NewVerifier(nil) // of one who saw this renewal, and no later one
				if _, err := v.Verify(renewed.Raw, node, clock.Now()); err != nil {
					t.Fatal(err)
				}
				if _, err := v.Verify(ticket.Raw, node, ends.Add(-time.Microsecond)); err != nil {
					t.Fatalf("void by the renewal %v before its end: %v", ends.Sub(clock.Now()), err)
				}
				clock.move(c.ttl/2 - time.Second)
				if clock.Now().Add(c.ttl).After(ends) {
					r.Load(d.entries()) // restarted
				}
			}
			// Used, or past: delegations live as configured again.
			clock.move(c.ttl)
			if d, err := r.Delegation(id); err != nil || d.Expires.Sub(d.Issued) != c.ttl {
				t.Errorf("afterwards %+v, %v", d, err)
			}
		})
	}
}

// TestChangedLife: what is in force is renewed in its own time, or sooner where
// delegations are to live shorter.
func TestChangedLife(t *testing.T) {
	for name, life := range map[string]time.Duration{"longer": 4 * ttl, "shorter": ttl / 4} {
		t.Run(name, func(t *testing.T) {
			r, clock := start(newDisk())
			id := create(t, r, alice, "alice").ID
			first, err := r.Delegation(id)
			if err != nil {
				t.Fatal(err)
			}
			r.SetTTL(life)
			clock.move(min(ttl, life)/2 - time.Microsecond)
			if d, err := r.Delegation(id); err != nil || d != first {
				t.Errorf("renewed too soon: %v", err)
			}
			clock.move(time.Microsecond)
			if d, err := r.Delegation(id); err != nil || d == first || d.Expires.Sub(d.Issued) != life {
				t.Errorf("in force is %+v, %v", d, err)
			}
		})
	}
}
