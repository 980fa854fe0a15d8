package store

import (
	"slices"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// userName is what must be unique among the identities of a user.
type userName struct {
	uid  uint32
	name string
}

// state is the whole store in memory.
type state struct {
	identities map[identity.ID]*Identity
	byName     map[userName]identity.ID
	owners     map[identity.ID]*owned // every owner of anything
	none       *owned                 // what others have: read only
	contactOf  index                  // whose contact an identity is
	// welcome tells whose contact an identity is that those have not blocked, homes
	// at which nodes it is known to live, and trusted which of those who are welcome
	// to anybody live at a node. They follow from the rest: see judge.
	welcome, homes, trusted index
	// delegations are the newest of each identity and node, whoever brought them:
	// so a revocation counts for everybody. Which of them an owner is told of is
	// its own: see owned.seen.
	delegations map[identity.ID]map[identity.ID]*identity.Delegation
	addresses   map[identity.ID][]string // learned, by node
	// nodeOf tells which identities are known to live at a node, and by how many
	// delegations and hints.
	nodeOf map[identity.ID]map[identity.ID]int
	meta   map[string]string
}

// owned is what one identity of this machine has.
type owned struct {
	contacts map[identity.ID]*Contact
	byName   map[string]identity.ID
	blocks   map[identity.ID]time.Time
	grants   map[grantKey]time.Time
	invites  map[[32]byte]*invite
	hints    map[identity.ID][]hint // by contact
	// seen are the nodes, by contact, whose delegation this owner came by itself.
	// Without it an owner could tell whom others here have as a contact.
	seen map[identity.ID]set[identity.ID]
}

type grantKey struct {
	who                Who
	protocol, instance string
}

type invite struct {
	name    string // of the contact to be, "" if none was given
	expires time.Time
	usedBy  identity.ID // zero until used
	void    bool        // the contact it made was removed or blocked
}

type hint struct {
	node    identity.ID
	address string
}

type set[K comparable] map[K]struct{}

func newState() *state {
	return &state{
		identities:  make(map[identity.ID]*Identity),
		byName:      make(map[userName]identity.ID),
		owners:      make(map[identity.ID]*owned),
		none:        newOwned(),
		contactOf:   make(index),
		welcome:     make(index),
		homes:       make(index),
		trusted:     make(index),
		delegations: make(map[identity.ID]map[identity.ID]*identity.Delegation),
		addresses:   make(map[identity.ID][]string),
		nodeOf:      make(map[identity.ID]map[identity.ID]int),
		meta:        make(map[string]string),
	}
}

func newOwned() *owned {
	return &owned{
		contacts: make(map[identity.ID]*Contact),
		byName:   make(map[string]identity.ID),
		blocks:   make(map[identity.ID]time.Time),
		grants:   make(map[grantKey]time.Time),
		invites:  make(map[[32]byte]*invite),
		hints:    make(map[identity.ID][]hint),
		seen:     make(map[identity.ID]set[identity.ID]),
	}
}

// of gives what owner has, for reading.
func (st *state) of(owner identity.ID) *owned {
	if o, ok := st.owners[owner]; ok {
		return o
	}
	return st.none
}

// make gives what owner has, for changing.
func (st *state) make(owner identity.ID) *owned {
	o, ok := st.owners[owner]
	if !ok {
		o = newOwned()
		st.owners[owner] = o
	}
	return o
}

func (st *state) putIdentity(i Identity) {
	if old, ok := st.identities[i.ID]; ok {
		delete(st.byName, userName{old.UID, old.Name})
	}
	st.identities[i.ID] = &i
	st.byName[userName{i.UID, i.Name}] = i.ID
}

func (st *state) putContact(c Contact) {
	o := st.make(c.Owner)
	if old, ok := o.contacts[c.ID]; ok {
		delete(o.byName, old.Name)
	}
	o.contacts[c.ID] = &c
	o.byName[c.Name] = c.ID
	st.contactOf.put(c.ID, c.Owner, true)
	st.judge(c.Owner, c.ID)
}

func (st *state) putBlock(owner, id identity.ID, added time.Time) {
	o := st.make(owner)
	o.blocks[id] = added
	o.voidTickets(id)
	st.judge(owner, id)
}

func (st *state) dropBlock(owner, id identity.ID) {
	delete(st.of(owner).blocks, id)
	st.judge(owner, id)
}

// dropContact forgets a contact with its grants, hints and tickets, and what is
// known of its nodes if nobody else has it.
func (st *state) dropContact(owner, id identity.ID) {
	o := st.of(owner)
	if c, ok := o.contacts[id]; ok {
		delete(o.byName, c.Name)
		delete(o.contacts, id)
	}
	for k := range o.grants {
		if k.who.id == id {
			delete(o.grants, k)
		}
	}
	o.voidTickets(id)
	for _, h := range o.hints[id] {
		st.unlink(h.node, id)
	}
	delete(o.hints, id)
	delete(o.seen, id)
	st.contactOf.put(id, owner, false)
	st.judge(owner, id)
	if len(st.contactOf[id]) > 0 {
		return
	}
	for node := range st.delegations[id] {
		st.unlink(node, id)
	}
	delete(st.delegations, id)
}

func (o *owned) voidTickets(id identity.ID) {
	for _, inv := range o.invites {
		if inv.usedBy == id {
			inv.void = true
		}
	}
}

func (st *state) putDelegation(d *identity.Delegation) {
	nodes := st.delegations[d.Identity]
	if nodes == nil {
		nodes = make(map[identity.ID]*identity.Delegation)
		st.delegations[d.Identity] = nodes
	}
	if _, ok := nodes[d.Node]; !ok {
		st.link(d.Node, d.Identity)
	}
	nodes[d.Node] = d
}

func (st *state) dropDelegation(id, node identity.ID) {
	if _, ok := st.delegations[id][node]; !ok {
		return
	}
	delete(st.delegations[id], node)
	st.unlink(node, id)
	for owner := range st.contactOf[id] {
		o := st.of(owner)
		if delete(o.seen[id], node); len(o.seen[id]) == 0 {
			delete(o.seen, id)
		}
	}
}

// putSeen does nothing but for a contact whose delegation is there.
func (st *state) putSeen(owner, id, node identity.ID) {
	o := st.of(owner)
	if o.contacts[id] == nil || st.delegations[id][node] == nil {
		return
	}
	if o.seen[id] == nil {
		o.seen[id] = make(set[identity.ID])
	}
	o.seen[id][node] = struct{}{}
}

func (o *owned) hasSeen(id, node identity.ID) bool {
	_, ok := o.seen[id][node]
	return ok
}

func (o *owned) hasHint(id, node identity.ID) bool {
	return slices.ContainsFunc(o.hints[id], func(h hint) bool { return h.node == node })
}

func (st *state) putHint(owner, id identity.ID, h hint) {
	o := st.make(owner)
	o.hints[id] = append(o.hints[id], h)
	st.link(h.node, id)
}

func (st *state) link(node, id identity.ID) {
	if st.nodeOf[node] == nil {
		st.nodeOf[node] = make(map[identity.ID]int)
	}
	st.nodeOf[node][id]++
	st.judgeHome(node, id)
}

// unlink forgets a node's addresses when nobody is known to live there any more.
func (st *state) unlink(node, id identity.ID) {
	if st.nodeOf[node][id]--; st.nodeOf[node][id] <= 0 {
		delete(st.nodeOf[node], id)
	}
	st.judgeHome(node, id)
	if len(st.nodeOf[node]) == 0 {
		delete(st.nodeOf, node)
		delete(st.addresses, node)
	}
}
