package p2p

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// What a stranger, a node that is not trusted, may hold. A stream is unproven
// until a first request was read from it or it was accepted: until then nobody
// reads what comes, up to the stream's first window.
const (
	strangerUnproven = 8  // of one node, as are the next two
	strangerStreams  = 32 // that it opened, unproven ones included
	strangerStalled  = 4  // accepted, with data that waits for a reader
	strangerRequests = 64 // of one connection in flight, as are the next
	strangerPayloads = 2 << 20
	strangerAnswers  = 8 * strangerPayloads
)

// strangers counts what all strangers hold together, since nodes cost nothing
// to make: a sixteenth of the memory for unread streams, and one for payloads.
type strangers struct {
	maxUnproven int
	maxFrom     int // of these, from one address
	maxPayloads int

	mu       sync.Mutex
	nodes    map[peer.ID]strangerCount
	from     map[netip.Prefix]*list.List // unproven ones (*strangerStream), oldest first; no list is empty
	unproven int
	opened   uint64 // streams so far
	payloads int    // bytes
}

// strangerCount counts the streams that one stranger opened.
type strangerCount struct{ streams, unproven int }

func (s *strangers) init(o Options) {
	share := o.MemoryLimit / 16
	s.maxUnproven = int(max(share/o.WindowInitial, 2*strangerUnproven))
	s.maxFrom = s.maxUnproven / 4
	s.maxPayloads = int(max(share, 2*strangerPayloads))
	s.nodes = make(map[peer.ID]strangerCount)
	s.from = make(map[netip.Prefix]*list.List)
}

// takeStream counts t, unless its node has enough. Where all places are taken, of
// t's address or of all, the oldest unproven stream has lost its own, and must be
// reset: of that address, or of the one that has most. So nobody is kept out by
// who only holds places, however many addresses that one has.
func (s *strangers) takeStream(t *strangerStream) (loser *strangerStream, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[t.peer]; n.streams >= strangerStreams || n.unproven >= strangerUnproven {
		return nil, false
	}
	switch own := s.from[t.from]; {
	case own != nil && own.Len() >= s.maxFrom:
		loser = own.Front().Value.(*strangerStream)
	case s.unproven >= s.maxUnproven:
		loser = s.oldestOfMost()
	}
	if loser != nil {
		s.settle(loser)
	}
	if s.from[t.from] == nil {
		s.from[t.from] = list.New()
	}
	s.opened++
	t.number = s.opened
	t.unproven = s.from[t.from].PushBack(t)
	s.unproven++
	n := s.nodes[t.peer]
	s.nodes[t.peer] = strangerCount{n.streams + 1, n.unproven + 1}
	return loser, true
}

// oldestOfMost is the oldest unproven stream of the address that has most of them.
// s.mu is held.
func (s *strangers) oldestOfMost() *strangerStream {
	var worst *strangerStream
	most := 0
	for _, l := range s.from {
		t := l.Front().Value.(*strangerStream)
		if l.Len() > most || l.Len() == most && t.number < worst.number {
			worst, most = t, l.Len()
		}
	}
	return worst
}

// settle takes t from those unproven. s.mu is held.
func (s *strangers) settle(t *strangerStream) {
	if t.unproven == nil {
		return
	}
	l := s.from[t.from]
	l.Remove(t.unproven)
	if l.Len() == 0 {
		delete(s.from, t.from)
	}
	t.unproven = nil
	s.unproven--
	n := s.nodes[t.peer]
	n.unproven--
	s.nodes[t.peer] = n
}

func (s *strangers) takePayload(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.payloads+n > s.maxPayloads {
		return false
	}
	s.payloads += n
	return true
}

func (s *strangers) givePayload(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.payloads -= n
}

// trusted tells whether a node is no stranger. It is asked again each time: a
// stranger becomes known by redeeming a ticket.
func (h *Host) trusted(node identity.ID) bool {
	if h.o.Trusted == nil || h.o.Trusted(node) {
		return true
	}
	if _, static := h.told.Load().static[node]; static {
		return true
	}
	n := h.nodes.peek(node)
	return n != nil && n.kept() // one that is only looked for may have been let go by all
}

// guard is libp2p's resource manager with our limits of strangers' streams.
type guard struct {
	network.ResourceManager
	h *Host
}

// OpenStream is asked for each stream before a byte of it is read.
func (g guard) OpenStream(p peer.ID, dir network.Direction) (network.StreamManagementScope, error) {
	scope, err := g.ResourceManager.OpenStream(p, dir)
	if err != nil || dir != network.DirInbound {
		return scope, err
	}
	if node, err := identity.FromPeerID(p); err == nil && g.h.trusted(node) {
		return scope, nil
	}
	t := &strangerStream{StreamManagementScope: scope, all: &g.h.strangers, peer: p, from: g.h.addressOf(p)}
	loser, ok := t.all.takeStream(t)
	if !ok {
		scope.Done()
		return nil, network.ErrResourceLimitExceeded
	}
	if loser != nil {
		g.h.tasks.run(func() { g.h.resetStranger(loser) })
	}
	return t, nil
}

// resetStranger resets the stream of a scope. libp2p has a scope a moment before it
// has the stream.
func (h *Host) resetStranger(t *strangerStream) {
	for pause := time.Millisecond; !t.over(); pause *= 2 {
		for _, c := range h.sw.ConnsToPeer(t.peer) {
			for _, s := range c.GetStreams() {
				if s.Scope() == network.StreamScope(t) {
					_ = s.ResetWithError(network.StreamResourceLimitExceeded)
					return
				}
			}
		}
		if !wait(h.ctx, pause) {
			return
		}
	}
}

func (t *strangerStream) over() bool {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	return t.done
}

// addressOf is where a connected node is.
func (h *Host) addressOf(p peer.ID) netip.Prefix {
	for _, c := range h.sw.ConnsToPeer(p) {
		if from := Network(ipOf(c.RemoteMultiaddr())); from.IsValid() {
			return from
		}
	}
	return netip.Prefix{}
}

// strangerStream is the scope of a stream that a stranger opened.
type strangerStream struct {
	network.StreamManagementScope
	all  *strangers
	peer peer.ID
	from netip.Prefix

	// Guarded by all.mu.
	number   uint64
	unproven *list.Element // nil: proven, or it lost its place
	done     bool
}

func (t *strangerStream) prove() {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	t.all.settle(t)
}

// Done is libp2p's word that the stream is over.
func (t *strangerStream) Done() {
	t.StreamManagementScope.Done()
	s := t.all
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.done {
		return
	}
	t.done = true
	s.settle(t)
	n := s.nodes[t.peer]
	if n.streams--; n.streams == 0 {
		delete(s.nodes, t.peer)
		return
	}
	s.nodes[t.peer] = n
}

// proven tells that s is read from now on.
func proven(s network.Stream) {
	if scope, ok := s.Scope().(*strangerStream); ok {
		scope.prove()
	}
}
