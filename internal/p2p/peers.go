package p2p

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
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
			Streams: stat.NumStreams, Since: stat.Opened}
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

// Ping measures one round trip to a node, connecting first, and tells the path
// it took. Errors are those of Request.
func (h *Host) Ping(ctx context.Context, node identity.ID) (rtt time.Duration, path, addr string, _ error) {
	n := h.nodes.get(node)
	defer n.done()
	if err := n.connect(ctx); err != nil {
		return 0, "", "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	results := ping.Ping(ctx, h.bh, node.PeerID())
	defer func() {
		cancel()
		for range results { // until its goroutine is gone
		}
	}()
	select {
	case r, ok := <-results:
		if !ok || r.Error != nil {
			if ctx.Err() != nil {
				return 0, "", "", ctxError(ctx, "the peer did not answer")
			}
			return 0, "", "", n.unreachable("it is connected but does not answer", nil)
		}
		rtt = r.RTT
	case <-ctx.Done():
		return 0, "", "", ctxError(ctx, "the peer did not answer")
	}
	for _, p := range h.Peers() {
		if p.Node == node {
			return rtt, p.Path, p.Addr, nil
		}
	}
	return 0, "", "", api.Errorf(api.CodePeerUnreachable, "peer not reachable: the connection was just closed")
}

// CloseNode closes all connections to a node, with all that runs over them. A
// protected node is dialled again.
func (h *Host) CloseNode(node identity.ID) {
	_ = h.sw.ClosePeer(node.PeerID())
}
