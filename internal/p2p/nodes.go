package p2p

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
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
	failed   *api.Error // of the last dial
	failedAt time.Time
	tags     map[string]bool // that protect it
	wake     chan struct{}   // of the re-dialler; nil if there is none
	urgent   bool            // the network changed: no more pause
}

// dial is one attempt to connect that many callers may wait for.
type dial struct {
	done chan struct{}
	err  *api.Error
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
		n.failed = nil
		n.mu.Unlock()
	}
}

// protected tells whether somebody here wants the node to stay connected.
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

// connect returns once there is a connection. Callers share one dial; a dial
// that just failed is not repeated at once.
func (n *node) connect(ctx context.Context) *api.Error {
	if n.h.sw.Connectedness(n.id.PeerID()) == network.Connected {
		return nil
	}
	d, err := n.startDial()
	if err != nil || d == nil {
		return err
	}
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctxError(ctx, "")
	}
	return n.unreachable("", n.addrs())
}

// startDial joins the dial that runs, or starts one.
func (n *node) startDial() (*dial, *api.Error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dialling != nil {
		return n.dialling, nil
	}
	if n.failed != nil && time.Since(n.failedAt) < n.h.o.Timing.DialAgain {
		return nil, n.failed
	}
	d := &dial{done: make(chan struct{})}
	n.dialling = d
	ok := n.h.tasks.run(func() {
		d.err = n.dial()
		n.mu.Lock()
		n.dialling, n.failed, n.failedAt = nil, d.err, time.Now()
		n.mu.Unlock()
		close(d.done)
	})
	if !ok {
		n.dialling = nil
		return nil, api.Errorf(api.CodePeerUnreachable, "this node is stopping")
	}
	return d, nil
}

// dial connects with every address that is known.
func (n *node) dial() *api.Error {
	id := n.id.PeerID()
	if n.id == n.h.node {
		return api.Errorf(api.CodeInternal, "this node was asked to connect to itself")
	}
	addrs := n.addrs()
	if len(addrs) == 0 {
		return api.Errorf(api.CodePeerUnreachable, "peer not reachable: no address of node %s is known", n.id.Short()).
			WithHint("ask for a new ticket, or add an address with \"fastn contact add NAME ID --address MULTIADDR\"")
	}
	ctx, cancel := context.WithTimeout(n.h.ctx, n.h.o.Timing.Dial)
	defer cancel()
	n.h.sw.Backoff().Clear(id) // the pause between dials is ours
	n.h.ps.AddAddrs(id, addrs, peerstore.TempAddrTTL)
	err := n.h.bh.Connect(network.WithDialPeerTimeout(ctx, n.h.o.Timing.Dial), peer.AddrInfo{ID: id})
	if err == nil || n.h.sw.Connectedness(id) == network.Connected {
		return nil
	}
	return n.unreachable(dialReasons(err), addrs)
}

// addrs collects the addresses from the book, the configuration and the peer.
func (n *node) addrs() []ma.Multiaddr {
	var lists [][]string
	if n.h.o.Book != nil {
		lists = append(lists, n.h.o.Book.Addresses(n.id))
	}
	lists = append(lists, n.h.told.Load().static[n.id])
	var out []ma.Multiaddr
	for _, list := range lists {
		for _, s := range list {
			if m, err := parseAddr(s, n.id); err == nil {
				out = append(out, m)
			}
		}
	}
	out = distinct(append(out, n.h.ps.Addrs(n.id.PeerID())...))
	return out[:min(len(out), 2*maxAddrs)]
}

// maxReasons bounds the addresses that an error names.
const maxReasons = 4

// unreachable makes the error of a request that was never sent.
func (n *node) unreachable(why string, addrs []ma.Multiaddr) *api.Error {
	if why == "" {
		var tried []string
		for _, m := range addrs[:min(len(addrs), maxReasons)] {
			tried = append(tried, m.String())
		}
		why = "no answer in the time allowed from " + strings.Join(tried, ", ")
	}
	return api.Errorf(api.CodePeerUnreachable, "peer not reachable: %s", why).
		WithHint("see that fastn runs there and that its port is open; \"fastn peers\" shows who is connected")
}

// dialReasons tells which addresses were tried and why each failed.
func dialReasons(err error) string {
	var de *swarm.DialError
	if !errors.As(err, &de) {
		if errors.Is(err, context.DeadlineExceeded) {
			return ""
		}
		return shortReason(err)
	}
	var out []string
	for i, te := range de.DialErrors {
		if i == maxReasons {
			out = append(out, fmt.Sprintf("and %d more", len(de.DialErrors)+de.Skipped-maxReasons))
			break
		}
		out = append(out, te.Address.String()+": "+shortReason(te.Cause))
	}
	if len(out) == 0 && de.Cause != nil {
		return shortReason(de.Cause)
	}
	return strings.Join(out, "; ")
}

// shortReason cuts a chain of errors down to its cause.
func shortReason(err error) string {
	if err == nil {
		return "unknown"
	}
	if isTimeout(err) || errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	s, _, _ := strings.Cut(err.Error(), "\n")
	if i := strings.LastIndex(s, ": "); i >= 0 {
		s = s[i+2:]
	}
	if len(s) > 120 {
		s = s[:120]
	}
	return strings.ToLower(s)
}
