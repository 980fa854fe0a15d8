package p2p

import (
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-yamux/v5"
	"github.com/quic-go/quic-go"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// Peers lists the connected nodes, sorted by id.
func (h *Host) Peers() []PeerStatus {
	best := make(map[identity.ID]PeerStatus)
	for _, c := range h.conns.list() {
		if c.conn.IsClosed() {
			continue
		}
		stat := c.conn.Stat()
		p := PeerStatus{Node: c.peer.Node, Path: pathOf(c.conn.RemoteMultiaddr()), Addr: c.peer.RemoteAddr,
			RTT: c.rtt(), Streams: stat.NumStreams, Since: stat.Opened}
		if old, ok := best[p.Node]; ok {
			streams := old.Streams + p.Streams
			if pathRank(old.Path) <= pathRank(p.Path) {
				p = old
			}
			p.Streams = streams
		}
		best[p.Node] = p
	}
	out := make([]PeerStatus, 0, len(best))
	for _, p := range best {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return slices.Compare(a.Node[:], b.Node[:]) })
	return out
}

func pathRank(path string) int {
	switch {
	case path == "direct quic":
		return 0
	case strings.HasPrefix(path, "direct"):
		return 1
	}
	return 2
}

// rtt is the round-trip time that the transport measures, 0 if it has not yet.
func (c *connState) rtt() time.Duration {
	var q *quic.Conn
	if c.conn.As(&q) {
		return q.ConnectionStats().SmoothedRTT
	}
	var y *yamux.Session
	if c.conn.As(&y) {
		return y.RTT()
	}
	return 0
}

// Connected tells whether there is a connection to node.
func (h *Host) Connected(node identity.ID) bool {
	return h.sw.Connectedness(node.PeerID()) == network.Connected
}

// WhyNot tells why the last dial of a node failed, "" if it is connected or was
// not dialled.
func (h *Host) WhyNot(node identity.ID) string {
	n := h.nodes.peek(node)
	if n == nil || h.sw.Connectedness(node.PeerID()) == network.Connected {
		return ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.why
}
