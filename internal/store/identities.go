package store

import (
	"context"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// Identity is one identity of this machine, as its user named it.
type Identity struct {
	ID     identity.ID
	UID    uint32
	Name   string // unique among the user's
	Online bool   // the user wants it served
	Added  time.Time
}

// SetIdentity stores an identity, or gives a stored one this uid, name and
// state. CodeConflict if another identity of the uid has the name,
// CodeBadRequest if it may not be a name.
func (s *Store) SetIdentity(ctx context.Context, id identity.ID, uid uint32, name string, online bool) error {
	if err := validIdentityName(name); err != nil {
		return err
	}
	return s.write(ctx, func(st *state, p *plan) error {
		i := Identity{ID: id, UID: uid, Name: name, Online: online, Added: s.now()}
		kind := IdentityAdded
		if old, ok := st.identities[id]; ok {
			i.Added = old.Added
			kind = identityChange(*old, i)
		}
		if kind == 0 {
			return nil
		}
		p.setIdentity(i, kind)
		return st.identityNameFree(i)
	})
}

// identityChange names the change that matters most, 0 if there is none.
func identityChange(old, now Identity) ChangeKind {
	switch {
	case old.UID != now.UID || old.Online != now.Online && !now.Online:
		return IdentityOffline // whatever is open was opened for somebody else
	case old.Online != now.Online:
		return IdentityOnline
	case old.Name != now.Name:
		return IdentityRenamed
	}
	return 0
}

func (p *plan) setIdentity(i Identity, kind ChangeKind) {
	p.exec(`INSERT INTO identities (id, uid, name, online, added) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET uid = excluded.uid, name = excluded.name, online = excluded.online`,
		i.ID, i.UID, i.Name, i.Online, i.Added)
	p.then(func(st *state) { st.putIdentity(i) })
	p.changes = append(p.changes, Change{Owner: i.ID, Kind: kind, Name: i.Name})
}

func (st *state) identityNameFree(i Identity) error {
	if holder, ok := st.byName[userName{i.UID, i.Name}]; ok && holder != i.ID {
		return api.Errorf(api.CodeConflict, "you have an identity %q already: %s", i.Name, holder).
			WithHint(`choose another name; "fastn id list" shows yours`)
	}
	return nil
}

// IdentityInfo gives what is stored of id; ok is false if that is nothing.
func (s *Store) IdentityInfo(id identity.ID) (info Identity, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := s.state.identities[id]
	if !ok {
		return Identity{}, false
	}
	return *i, true
}

// AllIdentities lists everybody's identities, in no order.
func (s *Store) AllIdentities() []Identity {
	return read(s, func(st *state) []Identity {
		list := make([]Identity, 0, len(st.identities))
		for _, i := range st.identities {
			list = append(list, *i)
		}
		return list
	})
}

// RemoveIdentity forgets id with its contacts, blocks, grants and invites; its
// key is the keystore's. CodeNotFound if nothing was stored.
func (s *Store) RemoveIdentity(ctx context.Context, id identity.ID) error {
	return s.write(ctx, func(st *state, p *plan) error {
		i, ok := st.identities[id]
		if !ok {
			return noIdentity(id.String())
		}
		p.changes = append(p.changes, Change{Owner: id, Kind: IdentityRemoved, Name: i.Name})
		p.exec("DELETE FROM identities WHERE id = ?", id)
		for _, t := range []string{"contacts", "blocks", "grants", "invites", "hints", "seen"} {
			p.exec("DELETE FROM "+t+" WHERE owner = ?", id)
		}
		p.forgetUnknown()
		p.then(func(st *state) {
			delete(st.byName, userName{i.UID, i.Name})
			delete(st.identities, id)
			for contact := range st.of(id).contacts {
				st.dropContact(id, contact)
			}
			delete(st.owners, id)
		})
		return nil
	})
}

// forgetUnknown removes what was known only for contacts that are gone.
func (p *plan) forgetUnknown() {
	p.exec("DELETE FROM delegations WHERE identity NOT IN (SELECT id FROM contacts)")
	p.exec(`DELETE FROM addresses WHERE node NOT IN (SELECT node FROM delegations)
		AND node NOT IN (SELECT node FROM hints)`)
}

func noIdentity(name string) error {
	return api.Errorf(api.CodeNotFound, "you have no identity %q", name).
		WithHint(`"fastn id list" shows yours`)
}
