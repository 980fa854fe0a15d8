package roster

import (
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// SetTTL changes how long delegations count that are issued from now on.
func (r *Roster) SetTTL(ttl time.Duration) { r.ttl.Store(int64(ttl)) }

func (r *Roster) life() time.Duration { return time.Duration(r.ttl.Load()) }

// Delegation returns the delegation of id to this node that is in force,
// issuing a new one after half of the old one's life, or when the clock went
// back before its beginning.
func (r *Roster) Delegation(id identity.ID) (*identity.Delegation, error) {
	now := r.now()
	p, live := r.snapshot(id)
	d := p.delegation
	if d != nil && !now.Before(d.Issued) && now.Before(d.Issued.Add(min(r.life(), d.Expires.Sub(d.Issued))/2)) {
		return d, nil
	}
	return r.issue(p, live, now, 0)
}

// Issue puts a new delegation of id in force that lives for atLeast, as one in
// a ticket must. Nor does it live shorter than others do: see issue.
func (r *Roster) Issue(id identity.ID, atLeast time.Duration) (*identity.Delegation, error) {
	p, live := r.snapshot(id)
	return r.issue(p, live, r.now(), atLeast)
}

// issue makes a delegation that lives for atLeast, for the configured time, and
// as long as every ticket of the identity that is out. Of an identity and node
// the newest bounds the older ones, wherever it is seen, so that a shorter one
// voids the tickets: to revoke is to issue one that ends earlier, knowingly.
func (r *Roster) issue(p Resident, live *Resident, now time.Time, atLeast time.Duration) (*identity.Delegation, error) {
	if live == nil {
		return nil, api.Errorf(api.CodeNotFound, "no such identity")
	}
	if err := p.Usable(); err != nil {
		return nil, err
	}
	now = now.Truncate(time.Microsecond) // as delegations have it
	life := max(atLeast, r.life(), r.names.LongestInvite(p.ID).Sub(now))
	d, err := identity.Delegate(p.key, r.node, now, life)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	live.delegation = d
	r.mu.Unlock()
	return d, nil
}
