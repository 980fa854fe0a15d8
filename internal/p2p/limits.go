package p2p

import (
	"net/netip"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/x/rate"
)

const (
	// streamsPerPeer holds in each direction: one protocol carries everything.
	streamsPerPeer = 10000
	connsPerPeer   = 8
	// transientConns are those that are being established.
	transientConns = 1024
	// A whole office may sit behind one address, hence more than libp2p's 8
	// connections and one new one in 5 s.
	connsPerAddress   = 512
	newConnsPerSecond = 10
)

// newResourceManager limits libp2p by o.MemoryLimit, which is the cgroup's:
// libp2p's own scaling looks at the machine's memory.
func newResourceManager(o Options) (network.ResourceManager, error) {
	// Which of the established connections stay, admission decides: those whose
	// peer is not known yet must not take the place of a contact's.
	conns := rcmgr.LimitVal(o.MaxConnections + transientConns)
	memory := rcmgr.LimitVal64(o.MemoryLimit / 2)
	few := rcmgr.ResourceLimits{Streams: 32, StreamsInbound: 16, StreamsOutbound: 16}
	cfg := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Memory: memory, FD: conns,
			Conns: conns, ConnsInbound: conns, ConnsOutbound: conns,
		},
		// What is not yet attributed to a peer or a protocol.
		Transient: rcmgr.ResourceLimits{
			Memory: memory / 8, FD: transientConns,
			Conns: transientConns, ConnsInbound: transientConns, ConnsOutbound: transientConns,
			Streams: 2 * streamsPerPeer, StreamsInbound: streamsPerPeer, StreamsOutbound: streamsPerPeer,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Memory: memory / 2, FD: connsPerPeer,
			Conns: connsPerPeer, ConnsInbound: connsPerPeer, ConnsOutbound: connsPerPeer,
			Streams: 2*streamsPerPeer + 64, StreamsInbound: streamsPerPeer + 32, StreamsOutbound: streamsPerPeer + 32,
		},
		ProtocolPeerDefault: few,
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{
			Protocol:        {Streams: 2 * streamsPerPeer, StreamsInbound: streamsPerPeer, StreamsOutbound: streamsPerPeer},
			identify.ID:     few,
			identify.IDPush: few,
		},
	}
	limits := cfg.Build(rcmgr.InfiniteLimits)
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: connsPerAddress}, {PrefixLength: 48, ConnCount: 4 * connsPerAddress}}),
		rcmgr.WithConnRateLimiters(connRate()))
}

// connRate bounds new connections per address; loopback is not limited.
func connRate() *rate.Limiter {
	limit := rate.Limit{RPS: newConnsPerSecond, Burst: connsPerAddress}
	return &rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{
			{Prefix: netip.MustParsePrefix("127.0.0.0/8")},
			{Prefix: netip.MustParsePrefix("::1/128")},
		},
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: limit}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: limit}},
		},
	}
}
