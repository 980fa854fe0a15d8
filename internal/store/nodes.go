package store

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// maxAddresses bounds the learned addresses of a node, and those that users
	// gave for it; maxAddress their length in bytes.
	maxAddresses = 16
	maxAddress   = 256
	// maxNodes bounds the nodes known for one identity; with more, the one whose
	// delegation is the oldest is forgotten.
	maxNodes = 32
	// putsAtOnce is how many delegations of one identity are written as they come,
	// enough for a new one of each of its nodes, and how many times the addresses
	// of one node; after these one each putEvery. Peers send as many as they like,
	// and each write waits for the disk.
	putsAtOnce = 2 * maxNodes
	putEvery   = time.Minute
	// putsWatched bounds the identities and nodes whose rate is remembered.
	putsWatched = 4096
)

// PutDelegation keeps d, which was verified and which owner, an identity of this
// machine, came by, if its identity is a contact of owner's; else it does nothing.
// Of an identity and node the newest is kept for all; that owner is told of it
// is owner's own. What is known already costs no write; a newer one of an identity
// whose writes come too fast counts at once, but is on the disk only with the
// next that is written.
func (s *Store) PutDelegation(ctx context.Context, owner identity.ID, d *identity.Delegation) error {
	if !read(s, func(st *state) bool { return st.news(owner, d) }) {
		return nil // the hot path: no queueing behind writers
	}
	return s.write(ctx, func(st *state, p *plan) error {
		if !st.news(owner, d) {
			return nil
		}
		if s.mayPut(d.Identity, s.now()) {
			p.putDelegation(st, owner, d)
		} else if old := st.delegations[d.Identity][d.Node]; old != nil && supersedes(d, old) {
			p.then(func(st *state) { st.putDelegation(d) })
		}
		return nil
	})
}

// mayPut takes one of an identity's or a node's writes; s.writing is held. What is kept is
// until when those that were taken are paid for by the rate.
func (s *Store) mayPut(id identity.ID, now time.Time) bool {
	const most = putsAtOnce * putEvery
	until, _ := s.puts.Get(id)
	if until.Before(now) || until.After(now.Add(most)) { // or the clock was set back
		until = now
	}
	until = until.Add(putEvery)
	if until.After(now.Add(most)) {
		return false
	}
	s.puts.Put(id, until)
	return true
}

// news tells whether PutDelegation has anything to write.
func (st *state) news(owner identity.ID, d *identity.Delegation) bool {
	o := st.of(owner)
	if o.contacts[d.Identity] == nil {
		return false
	}
	old := st.delegations[d.Identity][d.Node]
	return old == nil || supersedes(d, old) || !o.hasSeen(d.Identity, d.Node)
}

func (p *plan) putDelegation(st *state, owner identity.ID, d *identity.Delegation) {
	nodes := st.delegations[d.Identity]
	old := nodes[d.Node]
	if old == nil && len(nodes) >= maxNodes {
		p.dropDelegation(oldestDelegation(nodes))
	}
	if old == nil || supersedes(d, old) {
		p.exec(`INSERT INTO delegations (identity, node, issued, expires, raw) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (identity, node) DO UPDATE SET issued = excluded.issued, expires = excluded.expires, raw = excluded.raw`,
			d.Identity, d.Node, d.Issued, d.Expires, d.Raw)
		p.then(func(st *state) { st.putDelegation(d) })
	}
	if !st.of(owner).hasSeen(d.Identity, d.Node) {
		// A row may be left of one that a damaged file lost its delegation of.
		p.exec("INSERT INTO seen (owner, id, node) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", owner, d.Identity, d.Node)
		p.then(func(st *state) { st.putSeen(owner, d.Identity, d.Node) })
	}
}

func (p *plan) dropDelegation(d *identity.Delegation) {
	p.exec("DELETE FROM delegations WHERE identity = ? AND node = ?", d.Identity, d.Node)
	p.exec("DELETE FROM seen WHERE id = ? AND node = ?", d.Identity, d.Node)
	p.forgetUnknown()
	p.then(func(st *state) { st.dropDelegation(d.Identity, d.Node) })
}

// supersedes orders as identity.Verifier does: the later issued, and of two
// issued in the same µs the one that ends first.
func supersedes(d, old *identity.Delegation) bool {
	return d.Issued.After(old.Issued) || d.Issued.Equal(old.Issued) && d.Expires.Before(old.Expires)
}

func oldestDelegation(nodes map[identity.ID]*identity.Delegation) *identity.Delegation {
	var oldest *identity.Delegation
	for _, d := range nodes {
		if oldest == nil || d.Issued.Before(oldest.Issued) {
			oldest = d
		}
	}
	return oldest
}

// Delegations gives the unexpired delegations that owner has seen of its contact
// id, the newest first, one per node. They are shared: read only.
func (s *Store) Delegations(owner, id identity.ID) []*identity.Delegation {
	now := s.now()
	list := read(s, func(st *state) []*identity.Delegation { return st.seenDelegations(owner, id) })
	return slices.DeleteFunc(list, func(d *identity.Delegation) bool { return !now.Before(d.Expires) })
}

// seenDelegations copies them, expired or not, the newest first.
func (st *state) seenDelegations(owner, id identity.ID) []*identity.Delegation {
	seen := st.of(owner).seen[id]
	list := make([]*identity.Delegation, 0, len(seen))
	for node := range seen {
		list = append(list, st.delegations[id][node])
	}
	slices.SortFunc(list, func(a, b *identity.Delegation) int {
		return cmp.Or(b.Issued.Compare(a.Issued), bytes.Compare(a.Node[:], b.Node[:]))
	})
	return list
}

// NewestDelegation tells when the newest delegation seen, expired or not, was
// issued and ends; ok is false if none is kept. It makes Store an
// identity.Newest.
func (s *Store) NewestDelegation(id, node identity.ID) (issued, expires time.Time, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	d, ok := s.state.delegations[id][node]
	if !ok {
		return time.Time{}, time.Time{}, false
	}
	return d.Issued, d.Expires, true
}

// SetAddresses replaces what was learned of where a node listens. Of addrs, at
// most 16 are kept, none over 256 bytes or with control characters. Nothing is
// stored for nodes that are not known. Those of a node that changes them too fast
// count at once, but are on the disk only with the next that are written.
func (s *Store) SetAddresses(ctx context.Context, node identity.ID, addrs []string) error {
	addrs = cleanAddresses(addrs)
	return s.write(ctx, func(st *state, p *plan) error {
		if len(st.nodeOf[node]) == 0 || slices.Equal(st.addresses[node], addrs) {
			return nil
		}
		if s.mayPut(node, s.now()) {
			p.setAddresses(node, addrs)
		} else {
			p.then(func(st *state) { st.addresses[node] = addrs })
		}
		return nil
	})
}

func (p *plan) setAddresses(node identity.ID, addrs []string) {
	p.exec("DELETE FROM addresses WHERE node = ?", node)
	for i, a := range addrs {
		p.exec("INSERT INTO addresses (node, position, address) VALUES (?, ?, ?)", node, i, a)
	}
	p.then(func(st *state) { st.addresses[node] = addrs })
}

// cleanAddresses copies the ones that may be kept, each once: peers choose them.
func cleanAddresses(addrs []string) []string {
	var clean []string
	for _, a := range addrs {
		if validAddress(a) && !slices.Contains(clean, a) && len(clean) < maxAddresses {
			clean = append(clean, a)
		}
	}
	return clean
}

func validAddress(a string) bool {
	if a == "" || len(a) > maxAddress || !utf8.ValidString(a) {
		return false
	}
	for _, r := range a {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// addHint plans to store where the user says that a contact lives, before
// anything was heard of it. CodeBadRequest for the address.
func (p *plan) addHint(owner, id identity.ID, h hint, now time.Time) error {
	if h.node.IsZero() || !validAddress(h.address) {
		return api.Errorf(api.CodeBadRequest, "an address has 1 to %d printable characters and names its node", maxAddress).
			WithHint("write it as /ip4/192.0.2.1/udp/4100/quic-v1/p2p/NODEID")
	}
	p.exec("INSERT INTO hints (owner, id, node, address, added) VALUES (?, ?, ?, ?, ?)", owner, id, h.node, h.address, now)
	p.then(func(st *state) { st.putHint(owner, id, h) })
	return nil
}

// Addresses tells where a node may be reached: what was learned, then what users
// said. At most 16 of each. It is for connecting, which users share, and tells of
// all of them: what one may be shown is in AddressesFor.
func (s *Store) Addresses(node identity.ID) []string {
	return read(s, func(st *state) []string {
		list := slices.Clone(st.addresses[node])
		learned := len(list)
		for id := range st.nodeOf[node] {
			for owner := range st.contactOf[id] {
				for _, h := range st.of(owner).hints[id] {
					if h.node == node && len(list) < learned+maxAddresses && !slices.Contains(list, h.address) {
						list = append(list, h.address)
					}
				}
			}
		}
		slices.Sort(list[learned:])
		return list
	})
}

// AddressesFor gives those of Addresses that owner knows itself for its contact
// id: what was learned of the node if owner has seen that id lives there, and
// what owner said.
func (s *Store) AddressesFor(owner, id, node identity.ID) []string {
	return read(s, func(st *state) []string {
		o := st.of(owner)
		var list []string
		if o.hasSeen(id, node) {
			list = slices.Clone(st.addresses[node])
		}
		learned := len(list)
		for _, h := range o.hints[id] {
			if h.node == node && !slices.Contains(list, h.address) {
				list = append(list, h.address)
			}
		}
		slices.Sort(list[learned:])
		return list
	})
}

// Nodes lists the nodes that owner knows for its contact id: those it has seen by
// the newest delegation first, expired or not, then those that its user named.
// What others here know of the same identity is not among them.
func (s *Store) Nodes(owner, id identity.ID) []identity.ID {
	return read(s, func(st *state) []identity.ID {
		var nodes []identity.ID
		for _, d := range st.seenDelegations(owner, id) {
			nodes = append(nodes, d.Node)
		}
		for _, h := range st.of(owner).hints[id] {
			if !slices.Contains(nodes, h.node) {
				nodes = append(nodes, h.node)
			}
		}
		return nodes
	})
}

// NodeKnown tells whether a contact of anybody here is known to live at node, be it
// blocked: what is known of the node is kept. See NodeTrusted.
func (s *Store) NodeKnown(node identity.ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.state.nodeOf[node]) > 0
}

// KnownNodes lists all nodes that are NodeKnown, in no order.
func (s *Store) KnownNodes() []identity.ID {
	return read(s, func(st *state) []identity.ID {
		list := make([]identity.ID, 0, len(st.nodeOf))
		for node := range st.nodeOf {
			list = append(list, node)
		}
		return list
	})
}

// ContactsAt lists owner's contacts that owner knows to live at node, by name.
func (s *Store) ContactsAt(owner, node identity.ID) []Contact {
	list := read(s, func(st *state) []Contact {
		var list []Contact
		o := st.of(owner)
		for id := range st.nodeOf[node] {
			if c := o.contacts[id]; c != nil && (o.hasSeen(id, node) || o.hasHint(id, node)) {
				list = append(list, o.full(c))
			}
		}
		return list
	})
	slices.SortFunc(list, func(a, b Contact) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
