package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// Who is to whom a grant is given: one contact, all contacts, or anyone. The
// zero Who is nobody.
type Who struct {
	id    identity.ID
	group string // api.WhoContacts, api.WhoAnyone, or "" with an id
}

// WhoContact is the contact with that id.
func WhoContact(id identity.ID) Who { return Who{id: id} }

// WhoContacts is all contacts of the owner.
func WhoContacts() Who { return Who{group: api.WhoContacts} }

// WhoAnyone is everybody, strangers too.
func WhoAnyone() Who { return Who{group: api.WhoAnyone} }

// Contact gives the id of a grant to one contact; ok is false for the others.
func (w Who) Contact() (id identity.ID, ok bool) { return w.id, w.group == "" && !w.id.IsZero() }

// String gives "contacts", "anyone" or the id52.
func (w Who) String() string {
	if w.group != "" {
		return w.group
	}
	return w.id.String()
}

func (w Who) column() []byte {
	if w.group != "" {
		return []byte(w.group)
	}
	return w.id[:]
}

// whoOf reads a column; what it does not know gives the zero Who.
func whoOf(b []byte) Who {
	switch string(b) {
	case api.WhoContacts:
		return WhoContacts()
	case api.WhoAnyone:
		return WhoAnyone()
	}
	return WhoContact(toID(b))
}

// Grant lets Who use one protocol and instance of Owner's.
type Grant struct {
	Owner    identity.ID
	Who      Who
	Name     string // of the contact, "contacts" or "anyone"
	Protocol string
	Instance string
	Added    time.Time
}

// AddGrant gives a grant; giving it again changes nothing. An empty instance is
// the default one. CodeNotFound if who is one contact and not the owner's,
// CodeBadRequest if protocol or instance may not have that name, CodeOverBudget
// if the owner has too many grants.
func (s *Store) AddGrant(ctx context.Context, owner identity.ID, who Who, protocol, instance string) (Grant, error) {
	instance = api.Instance(instance)
	g := Grant{Owner: owner, Who: who, Protocol: protocol, Instance: instance}
	if err := cmp.Or(api.ValidProtocol(protocol), api.ValidName("the instance's name", instance)); err != nil {
		return g, err
	}
	err := s.write(ctx, func(st *state, p *plan) error {
		o := st.of(owner)
		if id, ok := who.Contact(); ok && o.contacts[id] == nil || who == (Who{}) {
			return noContact(id.String())
		}
		k := grantKey{who, protocol, instance}
		g.Name = o.grantName(who)
		var given bool
		if g.Added, given = o.grants[k]; given {
			return nil
		}
		if len(o.grants) >= maxGrants {
			return st.overBudget(owner, maxGrants, "grants").
				WithHint(`give one to "contacts" instead of one each, or remove one with "fastn grant remove WHO PROTOCOL"`)
		}
		g.Added = s.now()
		p.exec("INSERT INTO grants (owner, who, protocol, instance, added) VALUES (?, ?, ?, ?, ?)",
			owner, who, protocol, instance, g.Added)
		p.then(func(st *state) { st.make(owner).grants[k] = g.Added })
		p.grantChange(GrantAdded, g)
		return nil
	})
	return g, err
}

// grantName is how users know a grant's receiver.
func (o *owned) grantName(who Who) string {
	return cmp.Or(o.nameOf(who.id), who.String())
}

func (p *plan) grantChange(kind ChangeKind, g Grant) {
	p.changes = append(p.changes, Change{
		Owner: g.Owner, Who: g.Who.id, Kind: kind, Name: g.Name, Protocol: g.Protocol, Instance: g.Instance,
	})
}

// RemoveGrant takes a grant back. CodeNotFound.
func (s *Store) RemoveGrant(ctx context.Context, owner identity.ID, who Who, protocol, instance string) error {
	instance = api.Instance(instance)
	return s.write(ctx, func(st *state, p *plan) error {
		o := st.of(owner)
		k := grantKey{who, protocol, instance}
		name := o.grantName(who)
		if _, ok := o.grants[k]; !ok {
			return api.Errorf(api.CodeNotFound, "there is no grant of %s to %s", api.ServiceName(protocol, instance), name).
				WithHint(`"fastn grant list" shows yours; what contacts may use without a grant can only be blocked`)
		}
		p.exec("DELETE FROM grants WHERE owner = ? AND who = ? AND protocol = ? AND instance = ?",
			owner, who, protocol, instance)
		p.then(func(st *state) { delete(st.of(owner).grants, k) })
		p.grantChange(GrantRemoved, Grant{Owner: owner, Who: who, Name: name, Protocol: protocol, Instance: instance})
		return nil
	})
}

// Grants lists the owner's grants by receiver, protocol and instance.
func (s *Store) Grants(owner identity.ID) []Grant {
	list := read(s, func(st *state) []Grant {
		o := st.of(owner)
		list := make([]Grant, 0, len(o.grants))
		for k, added := range o.grants {
			list = append(list, Grant{
				Owner: owner, Who: k.who, Name: o.grantName(k.who),
				Protocol: k.protocol, Instance: k.instance, Added: added,
			})
		}
		return list
	})
	slices.SortFunc(list, func(a, b Grant) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Instance, b.Instance))
	})
	return list
}

// Granted tells whether a grant of owner's lets who use protocol and instance,
// and the narrowest receiver of one: by is "contact", "contacts" or "anyone".
// Blocks are not looked at.
func (s *Store) Granted(owner, who identity.ID, protocol, instance string) (by string, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o := s.state.of(owner)
	if _, ok := o.grants[grantKey{WhoContact(who), protocol, instance}]; ok {
		return "contact", true
	}
	if o.contacts[who] != nil {
		if _, ok := o.grants[grantKey{WhoContacts(), protocol, instance}]; ok {
			return api.WhoContacts, true
		}
	}
	if _, ok := o.grants[grantKey{WhoAnyone(), protocol, instance}]; ok {
		return api.WhoAnyone, true
	}
	return "", false
}

// GrantedAny tells whether any grant of owner's, of whatever protocol, applies
// to who. Blocks are not looked at.
func (s *Store) GrantedAny(owner, who identity.ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o := s.state.of(owner)
	for k := range o.grants {
		if k.who == WhoAnyone() || k.who == WhoContact(who) || k.who == WhoContacts() && o.contacts[who] != nil {
			return true
		}
	}
	return false
}
