package p2p

import (
	"net/netip"
	"sync"

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
	maxFrom     int // of these, from one address: one host cannot shut out all others
	maxPayloads int

	mu       sync.Mutex
	nodes    map[peer.ID]strangerCount
	from     map[netip.Prefix]int // unproven, by address
	unproven int
	payloads int // bytes
}

// strangerCount counts the streams that one stranger opened.
type strangerCount struct {
	streams, unproven int
	from              netip.Prefix // all are counted there, wherever it connects from meanwhile
}

func (s *strangers) init(o Options) {
	share := o.MemoryLimit / 16
	s.maxUnproven = int(max(share/o.WindowInitial, 2*strangerUnproven))
	s.maxFrom = s.maxUnproven / 4
	s.maxPayloads = int(max(share, 2*strangerPayloads))
	s.nodes = make(map[peer.ID]strangerCount)
	s.from = make(map[netip.Prefix]int)
}

func (s *strangers) takeStream(p peer.ID, from netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[p]
	if n.streams == 0 {
		n.from = from
	}
	if n.streams >= strangerStreams || n.unproven >= strangerUnproven ||
		s.from[n.from] >= s.maxFrom || s.unproven >= s.maxUnproven {
		return false
	}
	s.from[n.from]++
	n.streams++
	n.unproven++
	s.unproven++
	s.nodes[p] = n
	return true
}

// changeStream takes a stream away, or only from those unproven.
func (s *strangers) changeStream(p peer.ID, streams, unproven int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[p]
	n.streams -= streams
	n.unproven -= unproven
	s.unproven -= unproven
	if s.from[n.from] -= unproven; s.from[n.from] == 0 {
		delete(s.from, n.from)
	}
	if s.nodes[p] = n; n.streams == 0 {
		delete(s.nodes, p)
	}
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
	return n != nil && n.protected()
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
	if !g.h.strangers.takeStream(p, g.h.addressOf(p)) {
		scope.Done()
		return nil, network.ErrResourceLimitExceeded
	}
	return &strangerStream{StreamManagementScope: scope, all: &g.h.strangers, peer: p}, nil
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

	mu     sync.Mutex
	proven bool
	done   bool
}

func (s *strangerStream) prove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.proven && !s.done {
		s.proven = true
		s.all.changeStream(s.peer, 0, 1)
	}
}

// Done is libp2p's word that the stream is over.
func (s *strangerStream) Done() {
	s.StreamManagementScope.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return
	}
	s.done = true
	unproven := 1
	if s.proven {
		unproven = 0
	}
	s.all.changeStream(s.peer, 1, unproven)
}

// proven tells that s is read from now on.
func proven(s network.Stream) {
	if scope, ok := s.Scope().(*strangerStream); ok {
		scope.prove()
	}
}
