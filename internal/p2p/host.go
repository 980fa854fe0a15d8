package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libtls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/fastn-stack/fastnd/internal/crew"
	"github.com/fastn-stack/fastnd/internal/identity"
)

// Protocol is the one libp2p protocol that carries everything.
const Protocol protocol.ID = "/fastn/1.0.0"

// Host is this node on the network.
//
// It is built by hand rather than with libp2p.New: that would link every
// transport there is, and accepts listeners that partly fail.
type Host struct {
	o      Options
	server Server
	node   identity.ID
	told   atomic.Pointer[told]
	bound  []boundSocket

	rm   network.ResourceManager
	ps   peerstore.Peerstore
	bus  event.Bus
	sw   *swarm.Swarm
	bh   *basichost.BasicHost
	quic *quicSide

	ctx    context.Context // ends when Close begins
	cancel context.CancelFunc
	tasks  tasks
	crew   crew.Crew // serves requests, which their streams wait for
	events *eventQueue
	conns  connTable
	nodes  nodeTable

	strangers strangers

	closeOnce sync.Once
	closeErr  error
}

// tasks counts the goroutines of a Host. None starts once it is closing.
type tasks struct {
	mu      sync.Mutex
	closing bool
	wg      sync.WaitGroup
}

// begin tells whether a task may run; then end must follow.
func (t *tasks) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return false
	}
	t.wg.Add(1)
	return true
}

func (t *tasks) end() { t.wg.Done() }

func (t *tasks) run(f func()) bool {
	if !t.begin() {
		return false
	}
	go func() {
		defer t.end()
		f()
	}()
	return true
}

func (t *tasks) close() {
	t.mu.Lock()
	t.closing = true
	t.mu.Unlock()
}

// New starts a node that answers peers with s. It returns once every address is
// listened on; its error names the one that cannot be, and the setting.
func New(o Options, s Server) (*Host, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	h := &Host{o: o, server: s, node: o.Key.ID()}
	addrs, err := parseAnnounce(o.Announce, h.node)
	if err != nil {
		return nil, err
	}
	h.told.Store(&told{announce: addrs, static: o.StaticPeers})
	if h.bound, err = bindAll(o); err != nil {
		return nil, err
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.events = newEventQueue(o.OnEvent)
	h.conns.init(h)
	h.nodes.init(h)
	h.strangers.init(o)
	if err := h.start(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// start builds libp2p's host from its parts. Close undoes what it got done.
func (h *Host) start() error {
	if err := h.build(); err != nil {
		return fmt.Errorf("start libp2p: %w", err)
	}
	if err := h.listen(); err != nil {
		return err
	}
	h.sw.Notify(h.conns.notifiee())
	h.bh.SetStreamHandler(Protocol, h.serveStream)
	h.tasks.run(h.events.run)
	h.tasks.run(h.watchAlive)
	h.tasks.run(h.watchMemory)
	if err := h.watchIdentify(); err != nil {
		return err
	}
	h.bh.Start()
	if err := h.watchNetwork(); err != nil {
		h.o.Log.Warn("link changes are noticed late", "error", err)
	}
	for id := range h.o.StaticPeers {
		h.Protect(id, staticTag)
	}
	return nil
}

func (h *Host) build() (err error) {
	limits, err := newResourceManager(h.o)
	if err != nil {
		return err
	}
	h.rm = guard{limits, h}
	if h.ps, err = pstoremem.NewPeerstore(); err != nil {
		return err
	}
	h.bus = eventbus.NewBus()
	key, id := h.o.Key.PrivKey(), h.node.PeerID()
	if err := errors.Join(h.ps.AddPrivKey(id, key), h.ps.AddPubKey(id, key.GetPublic())); err != nil {
		return err
	}
	h.sw, err = swarm.NewSwarm(id, h.ps, h.bus,
		swarm.WithResourceManager(h.rm),
		swarm.WithDialTimeout(h.o.Timing.Dial),
		swarm.WithDialTimeoutLocal(h.o.Timing.Dial),
		// After many dead peers these give up a transport for the whole node.
		swarm.WithUDPBlackHoleSuccessCounter(nil),
		swarm.WithIPv6BlackHoleSuccessCounter(nil))
	if err != nil {
		return err
	}
	if err := h.addTransports(); err != nil {
		return err
	}
	h.bh, err = basichost.NewHost(h.sw, &basichost.HostOpts{
		EventBus:     h.bus,
		UserAgent:    "fastn",
		AddrsFactory: func([]ma.Multiaddr) []ma.Multiaddr { return h.ownAddrs() },
	})
	return err
}

func (h *Host) addTransports() error {
	key := h.o.Key.PrivKey()
	if h.o.QUIC {
		q, err := newQUICSide(h.o, h.rm)
		if err != nil {
			return err
		}
		h.quic = q
		t, err := libquic.NewTransport(key, q.cm, nil, nil, h.rm)
		if err != nil {
			return err
		}
		if err := h.sw.AddTransport(quicDialer{quicTransport{t}}); err != nil {
			return err
		}
	}
	if !h.o.TCP {
		return nil
	}
	muxers := []upgrader.StreamMuxer{{ID: "/yamux/1.0.0", Muxer: newMuxer(h.o)}}
	security, err := libtls.New(libtls.ID, key, muxers)
	if err != nil {
		return err
	}
	up, err := upgrader.New([]sec.SecureTransport{security}, muxers, nil, h.rm, nil)
	if err != nil {
		return err
	}
	// Without SO_REUSEPORT: two daemons of one user must not share a port.
	t, err := tcp.NewTCPTransport(up, h.rm, nil, tcp.DisableReuseport())
	if err != nil {
		return err
	}
	return h.sw.AddTransport(t)
}

// Node is the id of this node.
func (h *Host) Node() identity.ID { return h.node }

// IdleGoroutines is how many goroutines are kept for the next requests.
func (h *Host) IdleGoroutines() int { return h.crew.Idle() }

// Close lets peers have the answers under way, for a moment, then ends every
// connection and waits for every call of Server, AddressBook
// and OnEvent to return. What waits for an answer fails. Repeatable.
func (h *Host) Close() error {
	h.closeOnce.Do(func() { h.closeErr = h.close() })
	return h.closeErr
}

func (h *Host) close() error {
	h.drain()
	h.tasks.close()
	h.cancel()
	var err error
	switch {
	case h.bh != nil:
		err = h.bh.Close() // swarm, peerstore and resource manager too
	case h.sw != nil:
		err = errors.Join(h.sw.Close(), h.ps.Close(), h.rm.Close())
	default:
		if h.ps != nil {
			err = h.ps.Close()
		}
		if h.rm != nil {
			err = errors.Join(err, h.rm.Close())
		}
	}
	h.conns.closeAll()
	h.nodes.closeAll()
	h.events.close()
	h.tasks.wg.Wait()
	h.crew.Close()
	if h.quic != nil {
		err = errors.Join(err, h.quic.close())
	}
	closeSockets(h.bound)
	return err
}
