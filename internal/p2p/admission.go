package p2p

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

const (
	// strangerConns is how many connections a stranger may have: one more than
	// it needs, since the old one may be dead and not yet known to be.
	strangerConns = 2
	// strangersPerAddress bounds the connections of strangers from one address,
	// IPv6 /56. Loopback is not bounded.
	strangersPerAddress = 32
)

// admission decides which connections stay. A quarter of the places is kept
// from strangers, and the rest they lose to others while they are idle. Guarded
// by connTable.mu.
type admission struct {
	total     int // connections that have a place
	strangers int // of these, strangers' that they opened
	from      map[netip.Prefix]int
}

// place is what a connection has in the admission.
type place struct {
	has      bool
	stranger bool
	from     netip.Prefix // of a stranger; zero if not counted
}

// admit gives s a place, if need be that of victim, which must be closed then.
// t.mu is held.
func (t *connTable) admit(s *connState, stranger bool) (victim *connState, ok bool) {
	a, most := &t.admission, t.h.o.MaxConnections
	p := place{has: true, stranger: stranger}
	if stranger {
		p.from = sourcePrefix(s.peer.IP)
		switch {
		case t.counts[s.peer.Node] >= strangerConns:
			return nil, false
		case p.from.IsValid() && a.from[p.from] >= strangersPerAddress:
			if victim = t.idlest(p.from, false); victim == nil {
				return nil, false
			}
		case a.strangers >= max(most-most/4, 1):
			if victim = t.idlest(netip.Prefix{}, false); victim == nil {
				return nil, false
			}
		}
	}
	if victim == nil && a.total >= most {
		if victim = t.idlest(netip.Prefix{}, !stranger); victim == nil {
			return nil, false
		}
	}
	if victim != nil {
		t.leave(victim)
	}
	s.place = p
	a.total++
	if stranger {
		a.strangers++
		a.from[p.from]++
	}
	return victim, true
}

// leave takes the place of s away.
func (t *connTable) leave(s *connState) {
	if !s.place.has {
		return
	}
	t.promote(s)
	t.admission.total--
	s.place = place{}
}

// promote makes s count as a stranger's no longer.
func (t *connTable) promote(s *connState) {
	if !s.place.stranger {
		return
	}
	a := &t.admission
	a.strangers--
	if a.from[s.place.from]--; a.from[s.place.from] == 0 {
		delete(a.from, s.place.from)
	}
	s.place.stranger = false
}

// demote makes s count as a stranger's: of a contact that was blocked, or is none
// any more. What is over a bound by that goes when places are needed.
func (t *connTable) demote(s *connState) {
	if !s.place.has || s.place.stranger || s.conn.Stat().Direction != network.DirInbound {
		return
	}
	s.place.stranger, s.place.from = true, sourcePrefix(s.peer.IP)
	t.admission.strangers++
	t.admission.from[s.place.from]++
}

// idlest finds the connection of a stranger, from an address if that is given,
// which is missed least: without recent use, then the oldest. One with something
// under way is chosen only if busy.
func (t *connTable) idlest(from netip.Prefix, busy bool) *connState {
	var best *connState
	for _, s := range t.conns {
		if !s.place.stranger || from.IsValid() && s.place.from != from || !busy && s.busy() {
			continue
		}
		if t.h.trusted(s.peer.Node) {
			t.promote(s)
			continue
		}
		if best == nil || s.idlerThan(best) {
			best = s
		}
	}
	return best
}

func (s *connState) idlerThan(o *connState) bool {
	if a, b := s.busy(), o.busy(); a != b {
		return b
	}
	if a, b := s.used.Load(), o.used.Load(); a != b {
		return b
	}
	return s.conn.Stat().Opened.Before(o.conn.Stat().Opened)
}

// busy tells whether something is under way that was not refused.
func (s *connState) busy() bool {
	return s.serving.Load() > 0 || s.asking.Load() > 0 || s.raw.count() > 0
}

// use tells that the connection carried something that was not refused.
func (s *connState) use() {
	if !s.used.Load() {
		s.used.Store(true)
	}
}

// watchIdle closes the connection when it was a stranger's and of no use for
// the time that Timing.Stranger says; as often it looks whose it is. table.mu is held.
func (s *connState) watchIdle() {
	h := s.table.h
	if h.o.Trusted == nil {
		return
	}
	s.idle = time.AfterFunc(h.o.Timing.Stranger, func() {
		if !h.tasks.begin() {
			return
		}
		defer h.tasks.end()
		trusted := h.trusted(s.peer.Node)
		s.table.mu.Lock()
		defer s.table.mu.Unlock()
		if trusted {
			s.table.promote(s)
		} else {
			s.table.demote(s)
		}
		switch {
		case s.ctx.Err() != nil:
		case s.used.Swap(false) || trusted || s.busy():
			s.idle.Reset(h.o.Timing.Stranger)
		default:
			h.o.Log.Debug("closed an idle connection to a stranger", "peer", s.peer.Node.String())
			h.tasks.run(func() { _ = s.conn.CloseWithError(network.ConnGarbageCollected) })
		}
	})
}

// sourcePrefix is the Network of ip, zero for loopback.
func sourcePrefix(ip netip.Addr) netip.Prefix {
	if ip.IsLoopback() {
		return netip.Prefix{}
	}
	return Network(ip)
}

// Network is what counts as one address, what one customer has: an IPv4 address,
// or an IPv6 /56. It is zero for what is no IP address.
func Network(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 56
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
