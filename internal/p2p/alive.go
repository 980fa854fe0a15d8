package p2p

import (
	"context"
	"fmt"
	"syscall"
	"time"

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

// pulse is what is remembered of a connection between two looks at it. Only
// Host.watchAlive uses it.
type pulse struct {
	last  traffic
	quiet int // looks since something came
}

// looksPerQuiet is how often a connection is looked at in Timing.Quiet.
const looksPerQuiet = 2

// watchAlive finds connections whose other end is gone without a word while
// something is awaited from it. Time is counted in looks, so that this process
// may itself be frozen for a while.
func (h *Host) watchAlive() {
	every := h.o.Timing.Quiet / looksPerQuiet
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
		for _, c := range h.conns.list() {
			c.look(int(h.o.Timing.Dead / every))
		}
	}
}

// look asks for a sign of life if nothing came for a while, and gives up the
// connection after dead looks without one.
func (c *connState) look(dead int) {
	awaited := c.asking.Load() > 0
	if !awaited && c.raw.count() == 0 {
		c.pulse.quiet = 0
		return
	}
	p := &c.pulse
	now, ok := c.traffic()
	if !ok || now.lives(p.last) {
		*p = pulse{last: now}
		return
	}
	if !awaited && p.quiet == 0 && now.sent == p.last.sent {
		return // idle streams: QUIC's and yamux's own keep-alives do
	}
	p.last, p.quiet = now, p.quiet+1
	switch {
	case p.quiet == looksPerQuiet:
		h := c.table.h
		h.tasks.run(c.ask)
		h.tasks.run(c.knock)
	case p.quiet >= dead:
		c.giveUp(fmt.Sprintf("nothing came from it for %v", c.table.h.o.Timing.Dead))
	}
}

// ask makes the other end say something. What it says is not looked at: it
// shows in the traffic.
func (c *connState) ask() {
	ctx, cancel := context.WithTimeout(c.ctx, c.table.h.o.Timing.Dead)
	defer cancel()
	c.greet(ctx)
}

// knock gives the connection up if the other machine says that nobody listens
// there any more, and nothing comes over it either.
func (c *connState) knock() {
	var q *quic.Conn
	addr, ok := udpOf(c.conn.RemoteMultiaddr())
	if !ok || !c.conn.As(&q) {
		return // a socket of TCP is told by itself
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.table.h.o.Timing.Dead)
	defer cancel()
	before, _ := c.traffic()
	if knock(ctx, addr) != syscall.ECONNREFUSED || !wait(ctx, 2*c.rtt()+graceMin) {
		return
	}
	if now, _ := c.traffic(); !now.lives(before) {
		c.giveUp("the machine there says that nobody listens on " + c.peer.RemoteAddr)
	}
}

// giveUp closes a connection that is dead.
func (c *connState) giveUp(why string) {
	if !c.why.CompareAndSwap(nil, &why) {
		return
	}
	h := c.table.h
	h.o.Log.Info("a dead connection is closed", "peer", c.peer.Node.String(), "address", c.peer.RemoteAddr, "reason", why)
	h.tasks.run(func() { _ = c.conn.Close() })
}
