// Package p2p is the far side of the daemon: one libp2p host, its connections
// to other nodes, and the frames of internal/wire that travel over them. It
// knows nodes only: identities, delegations and access are above it.
//
// Host is safe for concurrent use. All calls to one node share a few long-lived
// request streams; a raw stream has one of its own.
package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
)

// Options of New. Key is required; the zero value of the rest is a default.
type Options struct {
	Key identity.Key
	// Port is used for UDP and TCP alike; 0 takes one that is free for both.
	Port int
	// Listen holds IP addresses of this machine, or the wildcards, which are
	// the default. The wildcard of a family the kernel lacks is left out.
	Listen []string
	// QUIC and TCP choose the transports; at least one.
	QUIC, TCP bool
	// Announce holds multiaddrs told to peers beside those of the interfaces.
	Announce []string
	// StaticPeers are addresses (multiaddrs) known without discovery.
	StaticPeers map[identity.ID][]string
	// MemoryLimit is what the process may use, in bytes, at most what the
	// machine has; libp2p is given half.
	MemoryLimit int64
	// HeapInUse tells what is alive of the process's memory; nil asks the runtime.
	// While it is more than half of MemoryLimit, connections are closed.
	HeapInUse func() int64
	// StalledStreams is how many streams of a connection may wait for their
	// readers before the one that waits longest is reset.
	StalledStreams int
	// WindowInitial and WindowMax bound the unread bytes of a stream. Where the
	// memory is little, WindowMax and StalledStreams are less.
	WindowInitial, WindowMax int64
	// MaxConnections bounds connections of the whole node; strangers get at most
	// three quarters of them.
	MaxConnections int

	// Trusted tells whether a contact of somebody here, who has not blocked it, lives
	// at a node; what others may hold is little. It is asked often, must not block nor
	// call the Host. nil trusts every node; static and protected ones are trusted anyway.
	Trusted func(node identity.ID) bool

	Book    AddressBook // where nodes live; may be nil
	OnEvent func(Event) // called in order from one goroutine; may be nil
	// OnAddresses is called when links or addresses of this machine changed, while
	// what depended on old ones is being closed; Addrs tells the new ones. It may
	// block; may be nil.
	OnAddresses func()
	Log         *slog.Logger

	// Timing is for tests; zero fields are the defaults.
	Timing Timing
}

// Timing holds the clocks of the transport.
type Timing struct {
	Header     time.Duration // for a whole header, and each 64 KiB of payload: 10 s
	Write      time.Duration // for a frame to be taken by the connection: 30 s
	Dial       time.Duration // at most for a dial: 5 s
	Quiet      time.Duration // nothing came though something is awaited: a sign of life is asked for: 1 s
	Dead       time.Duration // none came since: the connection is given up: 10 s
	Stalled    time.Duration // without a Read a stream with data counts as stalled: 1 s
	RedialMin  time.Duration // first pause between dials of a protected node: 1 s
	RedialMax  time.Duration // longest pause: 60 s
	DialAgain  time.Duration // from a failed dial to the next, at most: 1 s
	Idle       time.Duration // a silent connection is dead: 30 s; kept alive at half of it
	Stranger   time.Duration // a connection of a stranger is closed when so long of no use: 15 s
	Patience   time.Duration // how long large requests of one sender wait for another one to end: 2 s
	Memory     time.Duration // between looks at the memory in use: 1 s
	Drain      time.Duration // at most for answers under way, at Close: 1 s
	SeekMax    time.Duration // longest pause between dials of a node that is sought: 1 h
	RequestCap int           // requests of a connection in flight at once: 8,192
}

// AddressBook says where nodes live. Calls may be concurrent.
type AddressBook interface {
	// Addresses gives the multiaddrs known for a node, with or without /p2p.
	Addresses(node identity.ID) []string
	// Learned tells what a connected node says of itself. It may block.
	Learned(node identity.ID, addrs []string)
}

// Peer is the proven other end of a connection.
type Peer struct {
	Node       identity.ID
	RemoteAddr string     // multiaddr
	IP         netip.Addr // zero if the address has none
}

// Server answers what peers send. Calls are concurrent.
type Server interface {
	// ServeFrame answers one Open, Whois or Redeem with its payload. ctx ends on
	// Cancel, at the deadline of a call, and when the connection is lost.
	//
	// For an Open of a stream it may call accept, once: that sends the reply and
	// gives the raw stream; ServeFrame returns when the stream is over, and its
	// results are then ignored. Without accept the reply is the refusal.
	ServeFrame(ctx context.Context, from Peer, f *wire.Frame, payload []byte,
		accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte)
}

// Kinds of events.
const (
	EventConnected    = "connected"    // the first connection to a node
	EventDisconnected = "disconnected" // the last one is gone
)

// Event tells of a node that came or went.
type Event struct {
	Kind string
	Node identity.ID
	Path string // as in PeerStatus
	Addr string // multiaddr
}

// PeerStatus describes a connected node by its best connection.
type PeerStatus struct {
	Node    identity.ID
	Path    string        // "direct quic", "direct tcp" or "relayed via PEERID"
	Addr    string        // multiaddr
	RTT     time.Duration // round-trip time; 0 if not measured yet
	Streams int
	Since   time.Time
}

const (
	defaultStalledStreams = 128
	defaultWindowInitial  = 1 << 20
	defaultWindowMax      = 4 << 20
	defaultMaxConnections = 16384
	defaultMemory         = 2 << 30
)

// withDefaults checks o and fills what was left out.
func (o Options) withDefaults() (Options, error) {
	if o.Key.IsZero() {
		return o, errors.New("p2p: no node key")
	}
	if !o.QUIC && !o.TCP {
		return o, errors.New("p2p.tcp and p2p.quic are both false: at least one must be true")
	}
	if o.Port < 0 || o.Port > 65535 {
		return o, fmt.Errorf("p2p.port = %d is not a port", o.Port)
	}
	if len(o.Listen) == 0 {
		o.Listen = []string{"0.0.0.0", "::"}
	}
	o.MemoryLimit = memoryLimit(o.MemoryLimit, machineMemory())
	o.StalledStreams = orDefault(o.StalledStreams, defaultStalledStreams)
	o.WindowInitial = orDefault(o.WindowInitial, defaultWindowInitial)
	o.WindowMax = max(orDefault(o.WindowMax, defaultWindowMax), o.WindowInitial)
	o.fitMemory()
	if o.HeapInUse == nil {
		o.HeapInUse = heapInUse
	}
	o.MaxConnections = orDefault(o.MaxConnections, defaultMaxConnections)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	t := &o.Timing
	t.Header = orDefault(t.Header, 10*time.Second)
	t.Write = orDefault(t.Write, 30*time.Second)
	t.Dial = orDefault(t.Dial, 5*time.Second)
	t.Quiet = orDefault(t.Quiet, time.Second)
	t.Dead = orDefault(t.Dead, 10*time.Second)
	t.Stalled = orDefault(t.Stalled, time.Second)
	t.RedialMin = orDefault(t.RedialMin, time.Second)
	t.RedialMax = orDefault(t.RedialMax, time.Minute)
	t.DialAgain = orDefault(t.DialAgain, time.Second)
	t.Idle = orDefault(t.Idle, 30*time.Second)
	t.Stranger = orDefault(t.Stranger, 15*time.Second)
	t.Patience = orDefault(t.Patience, 2*time.Second)
	t.Memory = orDefault(t.Memory, time.Second)
	t.Drain = orDefault(t.Drain, time.Second)
	t.SeekMax = orDefault(t.SeekMax, time.Hour)
	t.RequestCap = orDefault(t.RequestCap, 8192)
	return o, nil
}

// memoryLimit is what may be used of total bytes, 0 if that is not known.
func memoryLimit(limit, total int64) int64 {
	limit = orDefault(limit, defaultMemory)
	if total > 0 {
		return min(limit, total)
	}
	return limit
}

// machineMemory asks sysinfo(2) how much memory there is.
func machineMemory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(uint64(info.Totalram) * uint64(info.Unit))
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}
