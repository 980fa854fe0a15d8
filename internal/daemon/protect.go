package daemon

import (
	"context"
	"strings"
	"sync"

	"github.com/fastn-stack/fastnd/internal/identity"
)

const (
	// movedTag marks nodes that are dialled to be told of other addresses.
	movedTag = "moved"
	// untoldKey is where the store keeps which nodes are still to be told.
	untoldKey = "p2p.untold"
)

// reach is which nodes are kept connected, and why: programs that serve a
// protocol are to be reached by their contacts through a NAT too, and whoever
// knows an old address is to be told of the new ones.
type reach struct {
	n *node

	mu     sync.Mutex
	served map[string]*registration // by tag
	untold map[identity.ID]bool
}

// registration is a protocol that a program serves.
type registration struct {
	owner identity.ID
	nodes map[identity.ID]bool // protected under its tag
}

func newReach(n *node) *reach {
	return &reach{n: n, served: make(map[string]*registration), untold: make(map[identity.ID]bool)}
}

// serve keeps the nodes of owner's contacts connected until release is called.
func (r *reach) serve(owner identity.ID, service string) (release func()) {
	tag := "serves " + owner.String() + " " + service
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &registration{owner: owner, nodes: make(map[identity.ID]bool)}
	r.served[tag] = s
	r.refresh(tag, s)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for id := range s.nodes {
			r.n.host.Unprotect(id, tag)
		}
		if r.served[tag] == s {
			delete(r.served, tag)
		}
	}
}

// changed follows a change of owner's contacts or of where they live.
func (r *reach) changed(owner identity.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for tag, s := range r.served {
		if s.owner == owner {
			r.refresh(tag, s)
		}
	}
}

// refresh brings what is protected under tag up to date; r.mu is held.
func (r *reach) refresh(tag string, s *registration) {
	wanted := make(map[identity.ID]bool)
	for _, c := range r.n.store.Contacts(s.owner) {
		if c.Blocked {
			continue
		}
		for _, id := range r.n.store.Nodes(s.owner, c.ID) {
			wanted[id] = id != r.n.host.Node()
		}
	}
	for id := range s.nodes {
		if !wanted[id] {
			r.n.host.Unprotect(id, tag)
			delete(s.nodes, id)
		}
	}
	for id, other := range wanted {
		if other && !s.nodes[id] {
			r.n.host.Protect(id, tag)
			s.nodes[id] = true
		}
	}
}

// moved has every node where a contact lives told of this node's addresses, by
// Identify as soon as it is connected; those that are away, at a later start.
func (r *reach) moved(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.n.store.KnownNodes() {
		if id != r.n.host.Node() {
			r.untold[id] = true
			r.n.host.Protect(id, movedTag)
		}
	}
	return r.keepUntold(ctx)
}

// resume goes on with what an earlier start left to be told.
func (r *reach) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept, _ := r.n.store.Meta(untoldKey)
	for _, s := range strings.Fields(kept) {
		if id, err := identity.ParseID(s); err == nil && r.n.store.NodeKnown(id) {
			r.untold[id] = true
		}
	}
	for id := range r.untold {
		r.n.host.Protect(id, movedTag)
	}
}

// connected notes that a node was told.
func (r *reach) connected(ctx context.Context, id identity.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.untold[id] {
		return nil
	}
	r.n.host.Unprotect(id, movedTag)
	delete(r.untold, id)
	return r.keepUntold(ctx)
}

func (r *reach) keepUntold(ctx context.Context) error {
	var ids []string
	for id := range r.untold {
		ids = append(ids, id.String())
	}
	return r.n.store.SetMeta(ctx, untoldKey, strings.Join(ids, " "))
}
