package p2p

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// nodeTable holds the nodes this one talks to.
type nodeTable struct {
	h *Host

	mu    sync.Mutex
	nodes map[identity.ID]*node
}

// node is one of them: how it is dialled, and the request streams to it.
type node struct {
	h  *Host
	id identity.ID

	users int // guarded by nodeTable.mu

	pool pool
	pace pace

	mu       sync.Mutex
	dialling *dial
	why      string               // the last dial failed; "" if it did not
	failed   *failure             // of the last dial, while it is held against the node
	tags     map[string]time.Time // that protect it, with their ends; zero: none
	wake     chan struct{}        // of the re-dialler; nil if there is none
	urgent   bool                 // the network changed: no more pause
}

func (t *nodeTable) init(h *Host) {
	t.h = h
	t.nodes = make(map[identity.ID]*node)
}

// get gives a node that is kept until done.
func (t *nodeTable) get(id identity.ID) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.nodes[id]
	if !ok {
		if len(t.nodes) >= maxNodes {
			t.evict()
		}
		n = &node{h: t.h, id: id}
		n.pool.init(n)
		n.pace.init(t.h.o.Timing.Patience)
		t.nodes[id] = n
	}
	n.users++
	return n
}

// done ends the use of a node that get gave.
func (n *node) done() {
	n.h.nodes.mu.Lock()
	defer n.h.nodes.mu.Unlock()
	n.users--
}

// evict drops nodes that are not in use, an eighth of all if there are so many:
// there may be one for each id that a user wrote. t.mu is held.
func (t *nodeTable) evict() {
	for id, n := range t.nodes {
		if len(t.nodes) < maxNodes-maxNodes/8 {
			return
		}
		if n.forgettable() && t.h.sw.Connectedness(id.PeerID()) != network.Connected {
			delete(t.nodes, id)
		}
	}
}

// peek gives a node only if it is known.
func (t *nodeTable) peek(id identity.ID) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.nodes[id]
}

func (t *nodeTable) list() []*node {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*node, 0, len(t.nodes))
	for _, n := range t.nodes {
		out = append(out, n)
	}
	return out
}

func (t *nodeTable) closeAll() {
	for _, n := range t.list() {
		n.pool.close()
	}
}

// maxNodes is how many nodes are remembered before those that are not in use
// are dropped.
const maxNodes = 4096

// disconnected forgets what belongs to a lost connection and dials a protected
// node again.
func (t *nodeTable) disconnected(id identity.ID) {
	n := t.peek(id)
	if n == nil {
		return
	}
	n.kick(false)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.nodes) <= maxNodes {
		return
	}
	if n.forgettable() {
		delete(t.nodes, id)
	}
}

func (t *nodeTable) connected(id identity.ID) {
	if n := t.peek(id); n != nil {
		n.mu.Lock()
		n.forgive()
		n.why = ""
		n.mu.Unlock()
	}
}

// kept tells whether somebody here wants the node to stay connected, more than that
// it is looked for.
func (n *node) kept() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, until := range n.tags {
		if until.IsZero() {
			return true
		}
	}
	return false
}

// protected tells whether a tag is left.
func (n *node) protected() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.tags) > 0
}

// forgettable tells whether nothing is lost with n. nodeTable.mu is held.
func (n *node) forgettable() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.users == 0 && n.dialling == nil && n.wake == nil && len(n.tags) == 0 && n.pool.empty()
}
