package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// Why Redeem refuses. Who knows the secret may be told ErrTicketUsed and
// ErrTicketExpired; ErrNoTicket is answered with the constant refusal.
var (
	ErrNoTicket      = errors.New("no such ticket")
	ErrTicketUsed    = errors.New("this ticket was used already")
	ErrTicketExpired = errors.New("this ticket has expired")
)

const (
	// maxInvites bounds an owner's tickets that can still be used.
	maxInvites = 1000
	// inviteMemory is how long a ticket is known after its end, so that its
	// user can be told why it is refused.
	inviteMemory = 30 * 24 * time.Hour
)

// AddInvite stores a ticket by the SHA-256 of its secret. name is for the
// contact to be, or empty. CodeBadRequest for a name that cannot be one,
// CodeOverBudget if the owner has too many tickets out.
func (s *Store) AddInvite(ctx context.Context, owner identity.ID, secretHash [32]byte, name string, expires time.Time) error {
	if name != "" {
		if err := validContactName(name); err != nil {
			return err
		}
	}
	expires = micro(expires)
	return s.write(ctx, func(st *state, p *plan) error {
		now := s.now()
		if n := st.of(owner).openInvites(now); n >= maxInvites {
			return api.Errorf(api.CodeOverBudget, "over budget: %d of %d tickets of this identity are out", n, maxInvites).
				WithHint("wait until some have expired, and give tickets a shorter life with --expires")
		}
		p.sweepInvites(now)
		p.addInvite(owner, secretHash, invite{name: name, expires: expires})
		return nil
	})
}

func (p *plan) addInvite(owner identity.ID, hash [32]byte, inv invite) {
	p.exec("INSERT INTO invites (hash, owner, name, expires) VALUES (?, ?, ?, ?)", hash[:], owner, inv.name, inv.expires)
	p.then(func(st *state) { st.make(owner).invites[hash] = &inv })
}

func (o *owned) openInvites(now time.Time) int {
	n := 0
	for _, inv := range o.invites {
		if inv.usedBy.IsZero() && now.Before(inv.expires) {
			n++
		}
	}
	return n
}

// LongestInvite tells when the last of owner's tickets that can still be used
// ends, which may be in the past; the zero time if there is none.
func (s *Store) LongestInvite(owner identity.ID) time.Time {
	return read(s, func(st *state) (last time.Time) {
		for _, inv := range st.of(owner).invites {
			if inv.usedBy.IsZero() && inv.expires.After(last) {
				last = inv.expires
			}
		}
		return last
	})
}

// sweepInvites forgets tickets that ended long ago.
func (p *plan) sweepInvites(now time.Time) {
	limit := now.Add(-inviteMemory)
	p.exec("DELETE FROM invites WHERE expires < ?", limit)
	p.then(func(st *state) {
		for _, o := range st.owners {
			for hash, inv := range o.invites {
				if inv.expires.Before(limit) {
					delete(o.invites, hash)
				}
			}
		}
	})
}

// Redeem uses a ticket of owner's for by, whose identity is proven: by becomes a
// contact, in the same transaction. The name is the invitation's, or if that is
// none or taken the beginning of the id52; a contact that by is already keeps
// its name. again tells that by used this ticket before and that contact
// stands; then nothing changes. Errors: ErrNoTicket (a blocked by gets it too),
// ErrTicketUsed, ErrTicketExpired, and for by to read CodeOverBudget if owner has
// too many contacts; then the ticket stays unused. Call PutDelegation with by's delegation after.
func (s *Store) Redeem(ctx context.Context, owner identity.ID, secret identity.Secret, by identity.ID, now time.Time) (name string, again bool, err error) {
	// Secrets are compared by their hashes only. How long that takes tells
	// something of a hash, which is no help in guessing 32 random bytes.
	hash := sha256.Sum256(secret[:])
	if !read(s, func(st *state) bool { return st.of(owner).invites[hash] != nil }) {
		return "", false, ErrNoTicket // strangers do not queue behind writers
	}
	err = s.write(ctx, func(st *state, p *plan) error {
		o := st.of(owner)
		inv := o.invites[hash]
		_, blocked := o.blocks[by]
		if inv == nil || blocked || by == owner || by.IsZero() {
			return ErrNoTicket
		}
		contact := o.contacts[by]
		if !inv.usedBy.IsZero() {
			if inv.usedBy != by || inv.void || contact == nil {
				return ErrTicketUsed
			}
			name, again = contact.Name, true
			return nil
		}
		if !now.Before(inv.expires) {
			return ErrTicketExpired
		}
		if contact == nil && len(o.contacts) >= maxContacts {
			return errContactsFull()
		}
		p.exec("UPDATE invites SET used_by = ? WHERE hash = ?", by, hash[:])
		p.then(func(st *state) { st.of(owner).invites[hash].usedBy = by })
		if contact != nil {
			name = contact.Name
			return nil
		}
		name = o.freeName(inv.name, by)
		p.addContact(Contact{Owner: owner, ID: by, Name: name, Added: micro(now)})
		return nil
	})
	return name, again, err
}

// freeName gives want, or if that is none or taken the shortest free beginning
// of the id52, of 8 characters or more.
func (o *owned) freeName(want string, id identity.ID) string {
	if _, taken := o.byName[want]; want != "" && !taken {
		return want
	}
	id52 := id.String()
	for n := 8; n < len(id52); n++ {
		if _, taken := o.byName[id52[:n]]; !taken {
			return id52[:n]
		}
	}
	return id52[1:] // 44 contacts that are named after this one
}
