package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// Contact is a name that Owner's user gave to an identity.
type Contact struct {
	Owner, ID identity.ID
	Name      string // unique among the owner's contacts
	Added     time.Time
	Blocked   bool
}

// NewContact is what AddContact stores, all of it or nothing. Beyond the first
// three fields it is what is known of where the contact lives.
type NewContact struct {
	Owner, ID identity.ID
	Name      string

	Delegation *identity.Delegation // verified; nil if none is held
	// Addresses are where a ticket says that Delegation's node listens; they
	// count only while nothing was learned of that node.
	Addresses []string
	Node      identity.ID // that the user named, with HintAddress
	Address   string
}

// AddContact adds a contact. CodeConflict if the name is taken or the id is a
// contact already: that one is never renamed or pointed elsewhere. CodeBadRequest
// if it may not be a name, CodeOverBudget if the owner has too many contacts.
func (s *Store) AddContact(ctx context.Context, n NewContact) error {
	if err := validContactName(n.Name); err != nil {
		return err
	}
	if n.ID == n.Owner || n.ID.IsZero() {
		return api.Errorf(api.CodeBadRequest, "an identity cannot be its own contact").
			WithHint(`"self" names the identity itself wherever a contact is taken`)
	}
	return s.write(ctx, func(st *state, p *plan) error {
		o := st.of(n.Owner)
		if c, ok := o.contacts[n.ID]; ok {
			return o.isContactAlready(c, n.Name)
		}
		if err := o.contactNameFree(n.Name); err != nil {
			return err
		}
		if len(o.contacts) >= maxContacts {
			return st.overBudget(n.Owner, maxContacts, "contacts").
				WithHint(`remove one with "fastn contact remove NAME"; "fastn contact list" shows yours`)
		}
		p.addContact(Contact{Owner: n.Owner, ID: n.ID, Name: n.Name, Added: s.now()})
		if n.Delegation != nil && n.Delegation.Identity == n.ID {
			p.putDelegation(st, n.Owner, n.Delegation)
			// What is learned is everybody's: no ticket takes a node from the others.
			if len(st.addresses[n.Delegation.Node]) == 0 {
				p.setAddresses(n.Delegation.Node, cleanAddresses(n.Addresses))
			}
		}
		if n.Address != "" {
			return p.addHint(n.Owner, n.ID, hint{n.Node, n.Address}, s.now())
		}
		return nil
	})
}

// isContactAlready hints at renaming only where that would work.
func (o *owned) isContactAlready(c *Contact, name string) error {
	err := api.Errorf(api.CodeConflict, "%s is your contact %q already", c.ID, c.Name)
	if _, taken := o.byName[name]; taken {
		return err.WithHint(`"fastn contact list" shows your contacts`)
	}
	return err.WithHint(`to change its name use "fastn contact rename %s %s"`, api.ShellQuote(c.Name), api.ShellQuote(name))
}

func (o *owned) contactNameFree(name string) error {
	id, ok := o.byName[name]
	if !ok {
		return nil
	}
	return api.Errorf(api.CodeConflict, "you have a contact %q already: %s", name, id).
		WithHint(`choose another name, or rename that contact with "fastn contact rename %s NEWNAME"`, api.ShellQuote(name))
}

func (p *plan) addContact(c Contact) {
	p.exec("INSERT INTO contacts (owner, id, name, added) VALUES (?, ?, ?, ?)", c.Owner, c.ID, c.Name, c.Added)
	p.then(func(st *state) { st.putContact(c) })
	p.changes = append(p.changes, Change{Owner: c.Owner, Who: c.ID, Kind: ContactAdded, Name: c.Name})
}

// Contacts lists the owner's contacts by name, blocked ones too.
func (s *Store) Contacts(owner identity.ID) []Contact {
	list := read(s, func(st *state) []Contact {
		o := st.of(owner)
		list := make([]Contact, 0, len(o.contacts))
		for _, c := range o.contacts {
			list = append(list, o.full(c))
		}
		return list
	})
	slices.SortFunc(list, func(a, b Contact) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (o *owned) full(c *Contact) Contact {
	full := *c
	_, full.Blocked = o.blocks[c.ID]
	return full
}

// ContactByName gives the owner's contact of that name, or CodeNotFound.
func (s *Store) ContactByName(owner identity.ID, name string) (Contact, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o := s.state.of(owner)
	id, ok := o.byName[name]
	if !ok {
		return Contact{}, noContact(name)
	}
	return o.full(o.contacts[id]), nil
}

// Contact tells the name that owner gave to who; ok is false if who is no
// contact of owner's.
func (s *Store) Contact(owner, who identity.ID) (name string, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, ok := s.state.of(owner).contacts[who]
	if !ok {
		return "", false
	}
	return c.Name, true
}

// ContactInfo gives owner's contact with that id; ok is false if there is none.
func (s *Store) ContactInfo(owner, who identity.ID) (c Contact, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o := s.state.of(owner)
	if c, ok := o.contacts[who]; ok {
		return o.full(c), true
	}
	return Contact{}, false
}

// RenameContact gives a contact another name. CodeNotFound, CodeConflict or
// CodeBadRequest.
func (s *Store) RenameContact(ctx context.Context, owner identity.ID, name, to string) error {
	if err := validContactName(to); err != nil {
		return err
	}
	return s.write(ctx, func(st *state, p *plan) error {
		o := st.of(owner)
		id, ok := o.byName[name]
		if !ok {
			return noContact(name)
		}
		if name == to {
			return nil
		}
		if err := o.contactNameFree(to); err != nil {
			return err
		}
		c := *o.contacts[id]
		c.Name = to
		p.exec("UPDATE contacts SET name = ? WHERE owner = ? AND id = ?", to, owner, id)
		p.then(func(st *state) { st.putContact(c) })
		p.changes = append(p.changes, Change{Owner: owner, Who: id, Kind: ContactRenamed, Name: to})
		return nil
	})
}

// RemoveContact removes a contact with its grants and what the owner knows of
// its nodes, and voids the ticket that it used. A block stays. CodeNotFound.
func (s *Store) RemoveContact(ctx context.Context, owner identity.ID, name string) error {
	return s.write(ctx, func(st *state, p *plan) error {
		id, ok := st.of(owner).byName[name]
		if !ok {
			return noContact(name)
		}
		p.exec("DELETE FROM contacts WHERE owner = ? AND id = ?", owner, id)
		p.exec("DELETE FROM grants WHERE owner = ? AND who = ?", owner, id)
		p.exec("DELETE FROM hints WHERE owner = ? AND id = ?", owner, id)
		p.exec("DELETE FROM seen WHERE owner = ? AND id = ?", owner, id)
		p.exec("UPDATE invites SET void = 1 WHERE owner = ? AND used_by = ?", owner, id)
		p.forgetUnknown()
		p.then(func(st *state) { st.dropContact(owner, id) })
		p.changes = append(p.changes, Change{Owner: owner, Who: id, Kind: ContactRemoved, Name: name})
		return nil
	})
}

// Block refuses who everything of owner's, be it a contact or not, and voids
// the ticket that it used. Blocking again changes nothing. CodeOverBudget if the
// owner has blocked too many.
func (s *Store) Block(ctx context.Context, owner, who identity.ID) error {
	if who == owner || who.IsZero() {
		return api.Errorf(api.CodeBadRequest, "an identity cannot block itself").
			WithHint(`to stop serving it use "fastn id offline NAME"`)
	}
	return s.write(ctx, func(st *state, p *plan) error {
		o := st.of(owner)
		if _, ok := o.blocks[who]; ok {
			return nil
		}
		if len(o.blocks) >= maxBlocks {
			return st.overBudget(owner, maxBlocks, "blocks").
				WithHint(`strangers are refused without one; end one with "fastn contact unblock NAME"`)
		}
		now := s.now()
		p.exec("INSERT INTO blocks (owner, id, added) VALUES (?, ?, ?)", owner, who, now)
		p.exec("UPDATE invites SET void = 1 WHERE owner = ? AND used_by = ?", owner, who)
		p.then(func(st *state) { st.putBlock(owner, who, now) })
		p.changes = append(p.changes, Change{Owner: owner, Who: who, Kind: ContactBlocked, Name: o.nameOf(who)})
		return nil
	})
}

// Unblock takes a block back. CodeNotFound if there is none.
func (s *Store) Unblock(ctx context.Context, owner, who identity.ID) error {
	return s.write(ctx, func(st *state, p *plan) error {
		o := st.of(owner)
		if _, ok := o.blocks[who]; !ok {
			return api.Errorf(api.CodeNotFound, "%s is not blocked", cmp.Or(o.nameOf(who), who.String())).
				WithHint(`"fastn contact list" shows who is`)
		}
		p.exec("DELETE FROM blocks WHERE owner = ? AND id = ?", owner, who)
		p.then(func(st *state) { st.dropBlock(owner, who) })
		p.changes = append(p.changes, Change{Owner: owner, Who: who, Kind: ContactUnblocked, Name: o.nameOf(who)})
		return nil
	})
}

// Blocked tells whether owner blocked who.
func (s *Store) Blocked(owner, who identity.ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.state.of(owner).blocks[who]
	return ok
}

// Block is a blocked identity; Name is empty if it is no contact.
type Block struct {
	ID    identity.ID
	Name  string
	Added time.Time
}

// Blocks lists whom owner blocked, the oldest first.
func (s *Store) Blocks(owner identity.ID) []Block {
	list := read(s, func(st *state) []Block {
		o := st.of(owner)
		list := make([]Block, 0, len(o.blocks))
		for id, added := range o.blocks {
			list = append(list, Block{ID: id, Name: o.nameOf(id), Added: added})
		}
		return list
	})
	slices.SortFunc(list, func(a, b Block) int {
		return cmp.Or(a.Added.Compare(b.Added), slices.Compare(a.ID[:], b.ID[:]))
	})
	return list
}

func (o *owned) nameOf(id identity.ID) string {
	if c, ok := o.contacts[id]; ok {
		return c.Name
	}
	return ""
}

func noContact(name string) error {
	return api.Errorf(api.CodeNotFound, "you have no contact %q", api.Shorten(name)).
		WithHint(`"fastn contact list" shows yours`)
}
