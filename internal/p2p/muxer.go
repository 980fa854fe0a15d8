package p2p

import (
	"io"
	"math"
	"net"
	"syscall"

	"github.com/libp2p/go-libp2p/core/network"
	libyamux "github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-yamux/v5"
)

// muxer is yamux with our windows. libp2p's own reserves the first window of
// each stream up front, so that a few thousand idle streams would use up a
// small machine's limit; here only grown windows are counted.
type muxer struct{ cfg *yamux.Config }

var _ network.Multiplexer = muxer{}

func newMuxer(o Options) muxer {
	c := yamux.DefaultConfig()
	c.MaxStreamWindowSize = clampUint32(o.WindowMax)
	c.InitialStreamWindowSize = max(c.InitialStreamWindowSize, clampUint32(o.WindowInitial))
	c.MaxStreamWindowSize = max(c.MaxStreamWindowSize, c.InitialStreamWindowSize)
	c.MaxIncomingStreams = math.MaxUint32 // the resource manager counts
	c.KeepAliveInterval = o.Timing.Idle / 2
	c.ConnectionWriteTimeout = o.Timing.Idle / 2
	c.LogOutput = io.Discard
	c.ReadBufSize = 0 // TLS buffers already
	return muxer{cfg: c}
}

func (m muxer) NewConn(nc net.Conn, server bool, scope network.PeerScope) (network.MuxedConn, error) {
	span := func() (yamux.MemoryManager, error) { return growth{}, nil }
	if scope != nil {
		span = func() (yamux.MemoryManager, error) {
			s, err := scope.BeginSpan()
			return growth{s}, err
		}
	}
	open := yamux.Client
	if server {
		open = yamux.Server
	}
	s, err := open(nc, m.cfg, span)
	if err != nil {
		return nil, err
	}
	mc := muxedConn{MuxedConn: libyamux.NewMuxedConn(s)}
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok { // TLS
		nc = t.NetConn()
	}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			mc.raw = &rawSocket{raw}
		}
	}
	return mc, nil
}

// muxedConn is libp2p's with a way to the socket beneath.
type muxedConn struct {
	network.MuxedConn
	raw *rawSocket // nil if there is none
}

// As implements network.MuxedConn.
func (c muxedConn) As(target any) bool {
	if t, ok := target.(**rawSocket); ok && c.raw != nil {
		*t = c.raw
		return true
	}
	return c.MuxedConn.As(target)
}

// firstWindow is the priority with which yamux asks for a stream's first window.
const firstWindow = 255

// growth counts the memory by which the window of a stream grows.
type growth struct{ network.ResourceScopeSpan }

func (g growth) ReserveMemory(size int, prio uint8) error {
	if prio == firstWindow || g.ResourceScopeSpan == nil {
		return nil
	}
	return g.ResourceScopeSpan.ReserveMemory(size, prio)
}

func (g growth) ReleaseMemory(size int) {
	if g.ResourceScopeSpan != nil {
		g.ResourceScopeSpan.ReleaseMemory(size)
	}
}

func (g growth) Done() {
	if g.ResourceScopeSpan != nil {
		g.ResourceScopeSpan.Done()
	}
}

func clampUint32(n int64) uint32 { return uint32(min(n, math.MaxUint32)) }
