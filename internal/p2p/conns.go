package p2p

import (
	"context"
	"errors"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// connState is what is kept of a connection beside libp2p's own.
type connState struct {
	table  *connTable
	conn   network.Conn
	peer   Peer
	source netip.Addr      // our address on it, zero if unknown
	ctx    context.Context // ends when the connection is lost
	cancel context.CancelFunc

	raw      rawStreams
	numbers  atomic.Uint64 // of the raw streams opened here
	requests requestStreams
	opening  counter // incoming streams without a first frame yet
	budget   budget

	place   place        // guarded by table.mu
	idle    *time.Timer  // set under table.mu; nil if nobody is a stranger
	serving atomic.Int32 // calls of Server.ServeFrame
	asking  atomic.Int32 // requests of ours that wait for their answers
	used    atomic.Bool  // since idle last looked

	pulse pulse
	why   atomic.Pointer[string] // it was given up by this side; nil if it was not
}

// connTable holds the connections that are up.
type connTable struct {
	h    *Host
	seed maphash.Seed // of the hashes that tell senders apart

	mu     sync.Mutex
	conns  map[network.Conn]*connState
	shown  map[network.Conn]bool // of which "connected" was told
	counts map[identity.ID]int   // of those shown

	admission admission
}

func (t *connTable) init(h *Host) {
	t.h = h
	t.seed = maphash.MakeSeed()
	t.conns = make(map[network.Conn]*connState)
	t.shown = make(map[network.Conn]bool)
	t.counts = make(map[identity.ID]int)
	t.admission.from = make(map[netip.Prefix]int)
}

func (t *connTable) notifiee() network.Notifiee {
	return &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { t.connected(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { t.disconnected(c) },
	}
}

var errConnGone = errors.New("the connection is closed")

// get gives the state of a connection. A stream may arrive before libp2p tells
// of its connection, hence it is made here.
func (t *connTable) get(c network.Conn) (*connState, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.conns[c]; ok {
		return s, nil
	}
	if c.IsClosed() || t.h.ctx.Err() != nil {
		return nil, errConnGone
	}
	node, err := identity.FromPeerID(c.RemotePeer())
	if err != nil {
		return nil, err
	}
	s := &connState{table: t, conn: c}
	s.peer = Peer{Node: node, RemoteAddr: c.RemoteMultiaddr().String(), IP: ipOf(c.RemoteMultiaddr())}
	if s.source = ipOf(c.LocalMultiaddr()); s.source.IsUnspecified() {
		s.source = sourceFor(s.peer.IP)
	}
	s.ctx, s.cancel = context.WithCancel(t.h.ctx)
	s.raw.init(s)
	s.budget.init()
	t.conns[c] = s
	return s, nil
}

func (t *connTable) connected(c network.Conn) {
	s, err := t.get(c)
	if err != nil {
		if !errors.Is(err, errConnGone) {
			_ = c.Close() // no Ed25519 node: nothing it says could be proven
		}
		return
	}
	stranger := c.Stat().Direction == network.DirInbound && !t.h.trusted(s.peer.Node)
	t.mu.Lock()
	if t.conns[c] != s || t.shown[c] {
		t.mu.Unlock()
		return
	}
	victim, ok := t.admit(s, stranger)
	if !ok {
		t.mu.Unlock()
		_ = c.CloseWithError(network.ConnResourceLimitExceeded)
		return
	}
	s.watchIdle()
	t.shown[c] = true
	t.counts[s.peer.Node]++
	first := t.counts[s.peer.Node] == 1
	if first { // in the order of what is told: another connection may come or go at once
		t.h.events.add(eventOf(EventConnected, s))
	}
	t.mu.Unlock()
	if victim != nil {
		_ = victim.conn.CloseWithError(network.ConnResourceLimitExceeded)
	}
	if !first {
		t.suspectOlder(s)
	}
	t.h.nodes.connected(s.peer.Node)
}

func (t *connTable) disconnected(c network.Conn) {
	t.mu.Lock()
	s, ok := t.conns[c]
	last := t.shown[c]
	if last {
		t.counts[s.peer.Node]--
		if last = t.counts[s.peer.Node] == 0; last {
			delete(t.counts, s.peer.Node)
			t.h.events.add(eventOf(EventDisconnected, s))
		}
	}
	delete(t.conns, c)
	delete(t.shown, c)
	if ok {
		t.leave(s)
	}
	t.mu.Unlock()
	if !ok {
		return
	}
	s.end()
	if last {
		t.h.nodes.disconnected(s.peer.Node)
	}
}

// forget drops the state of a connection of which libp2p told nothing, because
// it closed at once.
func (t *connTable) forget(s *connState) {
	t.mu.Lock()
	stale := s.conn.IsClosed() && t.conns[s.conn] == s && !t.shown[s.conn]
	if stale {
		delete(t.conns, s.conn)
	}
	t.mu.Unlock()
	if stale {
		s.end()
	}
}

// closeAll ends what libp2p did not tell the end of.
func (t *connTable) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.conns {
		s.end()
	}
	clear(t.conns)
}

// list gives a copy of all connections.
func (t *connTable) list() []*connState {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*connState, 0, len(t.conns))
	for _, s := range t.conns {
		out = append(out, s)
	}
	return out
}

func (s *connState) end() {
	s.cancel()
	s.raw.end()
	if s.idle != nil {
		s.idle.Stop()
	}
}

func eventOf(kind string, s *connState) Event {
	return Event{Kind: kind, Node: s.peer.Node, Path: pathOf(s.conn.RemoteMultiaddr()), Addr: s.peer.RemoteAddr}
}

// counter counts up to a limit.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) take(limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n >= limit {
		return false
	}
	c.n++
	return true
}

func (c *counter) give() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n--
}
