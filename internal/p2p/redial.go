package p2p

import (
	"context"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// Protect keeps a node connected: it is dialled now, and again with growing
// pauses whenever the connection is lost, until every tag is taken away.
func (h *Host) Protect(id identity.ID, tag string) { h.keep(id, tag, time.Time{}) }

// Seek is Protect for a node that may never come back: the pauses grow to an
// hour, and at until it ends.
func (h *Host) Seek(id identity.ID, tag string, until time.Time) { h.keep(id, tag, until) }

func (h *Host) keep(id identity.ID, tag string, until time.Time) {
	if id == h.node {
		return
	}
	n := h.nodes.get(id)
	defer n.done()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tags == nil {
		n.tags = make(map[string]time.Time)
	}
	n.tags[tag] = until
	if n.wake == nil {
		n.wake = make(chan struct{}, 1)
		if !h.tasks.run(n.keep) {
			n.wake = nil
		}
	} else if until.IsZero() {
		n.hurry() // it may be in a pause of an hour
	}
}

// Sought tells whether a node has a tag of Protect or Seek.
func (h *Host) Sought(id identity.ID) bool {
	n := h.nodes.peek(id)
	return n != nil && n.protected()
}

// Unprotect takes a tag away. The connection, if any, stays.
func (h *Host) Unprotect(id identity.ID, tag string) {
	n := h.nodes.peek(id)
	if n == nil {
		return
	}
	n.mu.Lock()
	delete(n.tags, tag)
	n.mu.Unlock()
	n.kick(false)
}

// kick makes the re-dialler look again; urgent, and the pause is over.
func (n *node) kick(urgent bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if urgent {
		n.hurry()
	} else {
		n.awaken()
	}
}

// hurry ends the pause. n.mu is held, as for awaken.
func (n *node) hurry() {
	n.forgive()
	n.urgent = true
	n.awaken()
}

func (n *node) awaken() {
	if n.wake == nil {
		return
	}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// shortLived is a connection that does not count as success: a peer that closes
// at once is not dialled in a loop.
const shortLived = 10 * time.Second

// keep dials a protected node whenever it is not connected.
func (n *node) keep() {
	pause := n.h.o.Timing.RedialMin
	for n.wanted() {
		if n.h.ctx.Err() != nil {
			return
		}
		began := time.Now()
		if n.redial() {
			n.sleep(-1) // until it is lost
			if time.Since(began) > shortLived {
				pause = n.h.o.Timing.RedialMin
				continue
			}
		}
		if n.sleep(jitter(pause)) {
			pause = n.h.o.Timing.RedialMin
			continue
		}
		pause = min(2*pause, n.longestPause())
	}
}

// wanted tells whether the node is still protected; if not, keep must end.
func (n *node) wanted() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(n.tags, func(_ string, until time.Time) bool { return !until.IsZero() && !now.Before(until) })
	if len(n.tags) > 0 {
		return true
	}
	n.wake = nil
	return false
}

// longestPause is between dials, if the node is only sought or is to be kept.
func (n *node) longestPause() time.Duration {
	if n.kept() {
		return n.h.o.Timing.RedialMax
	}
	return n.h.o.Timing.SeekMax
}

// redial connects, whatever failed before.
func (n *node) redial() bool {
	n.mu.Lock()
	n.forgive()
	n.urgent = false
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(n.h.ctx, n.h.o.Timing.Dial)
	defer cancel()
	return n.connect(ctx) == nil
}

// sleep waits for d, or until a connected node is lost if d < 0. It is true if
// the pause was cut short because the network changed.
func (n *node) sleep(d time.Duration) bool {
	var timer <-chan time.Time
	if d >= 0 {
		if n.takeUrgent() { // since redial began
			return true
		}
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	for {
		if d < 0 && n.h.sw.Connectedness(n.id.PeerID()) != network.Connected {
			return false
		}
		select {
		case <-timer:
			return false
		case <-n.h.ctx.Done():
			return false
		case <-n.wake:
		}
		if !n.protected() {
			return true
		}
		if d >= 0 && n.takeUrgent() {
			return true
		}
	}
}

func (n *node) takeUrgent() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	u := n.urgent
	n.urgent = false
	return u
}

// jitter spreads d by a fifth either way, so that many do not dial as one.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(d*2/5+1)
}
