package p2p

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// traffic is what a connection has carried, as far as it shows that the process
// at the other end lives: a frozen one's kernel still acknowledges TCP.
type traffic struct {
	received uint64 // bytes
	sent     uint64
	acked    uint64 // TCP only
	pending  bool   // TCP only: not all that was sent is acknowledged
}

// lives tells that something came since old, or that a queue moves that was
// there then: a question may have to wait behind much data on a slow link.
func (now traffic) lives(old traffic) bool {
	return now.received != old.received || old.pending && now.acked != old.acked
}

// traffic measures the connection; false if it cannot.
func (c *connState) traffic() (traffic, bool) {
	var q *quic.Conn
	if c.conn.As(&q) {
		s := q.ConnectionStats()
		return traffic{received: s.BytesReceived, sent: s.BytesSent}, true
	}
	var raw *rawSocket
	if !c.conn.As(&raw) {
		return traffic{}, false
	}
	return raw.traffic()
}

// rawSocket gives access to the TCP socket beneath a connection.
type rawSocket struct{ syscall.RawConn }

func (r rawSocket) traffic() (t traffic, ok bool) {
	var info *unix.TCPInfo
	var err error
	if r.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }) != nil || err != nil {
		return t, false
	}
	return traffic{received: info.Bytes_received, sent: info.Bytes_sent, acked: info.Bytes_acked,
		pending: info.Unacked > 0 || info.Notsent_bytes > 0}, true
}

// pulse is what is remembered of a connection between two looks at it.
type pulse struct {
	mu    sync.Mutex
	last  traffic
	quiet int    // looks since something came
	doubt *doubt // nil: as long as something is awaited
}

// doubt is a reason to think that a connection is dead, though nothing may be
// awaited from it.
type doubt struct {
	limit time.Duration // how long it may take to show that it lives
	why   string        // it is closed, if it does not
}

// looksPerQuiet is how often a connection is looked at in Timing.Quiet.
const looksPerQuiet = 2

func (h *Host) lookEvery() time.Duration { return h.o.Timing.Quiet / looksPerQuiet }

// watchAlive finds connections whose other end is gone without a word, while
// something is awaited from it or there is a doubt. Time is counted in looks, so
// that this process may itself be frozen for a while.
func (h *Host) watchAlive() {
	tick := time.NewTicker(h.lookEvery())
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
		for _, c := range h.conns.list() {
			c.look()
		}
	}
}

// look asks for a sign of life if nothing came for a while, and gives up the
// connection if none comes in time.
func (c *connState) look() {
	h, p := c.table.h, &c.pulse
	p.mu.Lock()
	defer p.mu.Unlock()
	awaited := c.asking.Load() > 0
	if !awaited && c.raw.count() == 0 && p.doubt == nil {
		p.quiet = 0
		return
	}
	now, ok := c.traffic()
	if !ok || now.lives(p.last) {
		p.last, p.quiet, p.doubt = now, 0, nil
		return
	}
	if !awaited && p.doubt == nil && p.quiet == 0 && now.sent == p.last.sent {
		return // idle streams: QUIC's and yamux's own keep-alives do
	}
	p.last, p.quiet = now, p.quiet+1
	limit, why := h.o.Timing.Dead, fmt.Sprintf("nothing came from it for %v", h.o.Timing.Dead)
	if p.doubt != nil {
		limit, why = p.doubt.limit, p.doubt.why
	}
	switch {
	case p.quiet >= max(1, int(limit/h.lookEvery())):
		h.tasks.run(func() { c.giveUp(why) })
	case p.doubt == nil && p.quiet == looksPerQuiet:
		h.tasks.run(c.greet)
		h.tasks.run(c.knock)
	}
}

// suspect asks for a sign of life now, and has the connection given up if none
// comes in time; if it is in doubt already it is asked once more only if again.
func (c *connState) suspect(d doubt, again bool) {
	p := &c.pulse
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.doubt == nil { // else one that is renewed for ever would keep the connection
		p.last, _ = c.traffic()
		p.quiet, p.doubt = 0, &d
	} else if !again {
		return
	}
	c.table.h.tasks.run(c.greet)
}

// suspectOlder looks after the older connections to the node of a new one. A
// node that crashed and came back connects anew, while the old connection would
// swallow requests until it times out; anything sent over it is answered with a
// reset at once, unless the node came back elsewhere.
func (t *connTable) suspectOlder(fresh *connState) {
	for _, c := range t.list() {
		if c != fresh && c.peer.Node == fresh.peer.Node {
			c.suspect(doubt{2 * time.Second, "the node has connected anew, and the old connection answers no more"}, false)
		}
	}
}

// greet makes the other end say something, on a stream of libp2p's. What it says
// is not looked at: it shows in the traffic.
func (c *connState) greet() {
	ctx, cancel := context.WithTimeout(c.ctx, c.table.h.o.Timing.Dead)
	defer cancel()
	s, err := c.conn.NewStream(network.WithAllowLimitedConn(ctx, "sign of life"))
	if err != nil {
		return // it is closed, or full
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if _, err = s.Write([]byte(hello)); err == nil {
		_, _ = s.Read(make([]byte, 1))
	}
}

// knock gives the connection up if the other machine says that nobody listens
// there any more, and nothing comes over it either: what look asked for has the
// time to be lost once and sent again, since a packet filter may refuse what is
// new and pass what is established.
func (c *connState) knock() {
	var q *quic.Conn
	addr, ok := udpOf(c.conn.RemoteMultiaddr())
	if !ok || !c.conn.As(&q) {
		return // a socket of TCP is told by itself
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.table.h.o.Timing.Dead)
	defer cancel()
	before, _ := c.traffic()
	grace := max(c.table.h.o.Timing.Quiet, probes*probeTimeout(q.ConnectionStats()))
	if knock(ctx, addr) != syscall.ECONNREFUSED || !wait(ctx, grace) {
		return
	}
	if now, _ := c.traffic(); !now.lives(before) {
		c.giveUp("the machine there says that nobody listens on " + c.peer.RemoteAddr)
	}
}

// probes are the probe timeouts in which QUIC sends a probe twice: after one, and
// after two more.
const probes = 3

// probeTimeout is how long QUIC waits for an acknowledgement before it sends again
// (RFC 9002 §6.2.1).
func probeTimeout(s quic.ConnectionStats) time.Duration {
	const ackDelay = 25 * time.Millisecond
	return s.SmoothedRTT + 4*s.MeanDeviation + ackDelay
}

// giveUp closes a connection that is dead, and returns when it is closed.
func (c *connState) giveUp(why string) {
	if !c.why.CompareAndSwap(nil, &why) {
		return
	}
	c.table.h.o.Log.Info("a dead connection is closed", "peer", c.peer.Node.String(), "address", c.peer.RemoteAddr, "reason", why)
	_ = c.conn.Close()
}
