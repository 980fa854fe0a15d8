package daemon

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
)

const (
	// movedTag marks nodes that are dialled to be told of other addresses.
	movedTag = "moved"
	// untoldKey is where the store keeps which nodes are still to be told.
	untoldKey = "p2p.untold"
	// tellWithin is how long a node is looked for that is to be told.
	tellWithin = 30 * 24 * time.Hour
	// tellFor is how long a node is connected before it counts as told: Identify has
	// no acknowledgement, and what it told is to be on the other side's disk. It is
	// longer than the 30 s for which one that was killed may seem connected.
	tellFor = 45 * time.Second
)

// reach is which nodes are kept connected, and why: programs that serve a
// protocol are to be reached by their contacts through a NAT too, and whoever
// knows an old address is to be told of the new ones.
type reach struct {
	n *node

	tellFor time.Duration
	wake    chan struct{} // of work

	keeping sync.Mutex // of keepUntold, which waits for the disk

	mu     sync.Mutex
	served map[string]*registration // by tag
	untold map[identity.ID]untold
}

// untold is a node that is to be told of other addresses.
type untold struct {
	until     time.Time // it is looked for
	connected time.Time // since when, to these addresses; zero if it is away
}

// registration is a protocol that a program serves.
type registration struct {
	owner identity.ID
	nodes map[identity.ID]bool // protected under its tag
}

func newReach(n *node) *reach {
	return &reach{n: n, tellFor: tellFor, wake: make(chan struct{}, 1),
		served: make(map[string]*registration), untold: make(map[identity.ID]untold)}
}

// serve keeps the nodes of owner's contacts connected until release is called.
func (r *reach) serve(owner identity.ID, service string) (release func()) {
	tag := "serves " + owner.String() + " " + service
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &registration{owner: owner, nodes: make(map[identity.ID]bool)}
	r.served[tag] = s
	r.refresh(tag, s)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for id := range s.nodes {
			r.n.host.Unprotect(id, tag)
		}
		if r.served[tag] == s {
			delete(r.served, tag)
		}
	}
}

// changed follows a change of owner's contacts or of where they live.
func (r *reach) changed(owner identity.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look() // some may be contacts' no more
	for tag, s := range r.served {
		if s.owner == owner {
			r.refresh(tag, s)
		}
	}
}

// refresh brings what is protected under tag up to date; r.mu is held.
func (r *reach) refresh(tag string, s *registration) {
	wanted := make(map[identity.ID]bool)
	for _, c := range r.n.store.Contacts(s.owner) {
		if c.Blocked {
			continue
		}
		for _, id := range r.n.store.Nodes(s.owner, c.ID) {
			wanted[id] = id != r.n.host.Node()
		}
	}
	for id := range s.nodes {
		if !wanted[id] {
			r.n.host.Unprotect(id, tag)
			delete(s.nodes, id)
		}
	}
	for id, other := range wanted {
		if other && !s.nodes[id] {
			r.n.host.Protect(id, tag)
			s.nodes[id] = true
		}
	}
}

// moved has every node where a contact lives told of this node's addresses, by
// Identify while it is connected; those that are away, at a later start; those whose
// contacts are all blocked, when one is no longer.
func (r *reach) moved(ctx context.Context) error {
	until := time.Now().Add(tellWithin)
	for _, id := range r.n.store.KnownNodes() {
		if id != r.n.host.Node() {
			r.seek(id, until)
		}
	}
	return r.keepUntold(ctx)
}

// resume goes on with what an earlier start left to be told.
func (r *reach) resume() {
	kept, _ := r.n.store.Meta(untoldKey)
	for id, until := range parseUntold(kept, time.Now()) {
		r.seek(id, until)
	}
}

// seek looks for a node until it was told; see aim.
func (r *reach) seek(id identity.ID, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.untold[id] = untold{until: until}
	r.aim(id)
	if r.n.host.Connected(id) {
		r.hears(id)
	}
}

// judge follows a change of whose contacts are blocked, or of who is one: nodes are
// looked for again, or no longer.
func (r *reach) judge() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.untold {
		r.aim(id)
	}
}

// aim has an untold node looked for, but not while all who live there are blocked:
// one that is sought may hold more than a stranger. r.mu is held.
func (r *reach) aim(id identity.ID) {
	if r.n.store.NodeTrusted(id) {
		r.n.host.Seek(id, movedTag, r.untold[id].until)
	} else {
		r.n.host.Unprotect(id, movedTag)
	}
}

// parseUntold reads what keepUntold wrote, without those whose time is over.
func parseUntold(kept string, now time.Time) map[identity.ID]time.Time {
	out := make(map[identity.ID]time.Time)
	for _, s := range strings.Fields(kept) {
		text, at, _ := strings.Cut(s, "@")
		until := now.Add(tellWithin) // earlier versions kept no time
		if sec, err := strconv.ParseInt(at, 10, 64); err == nil {
			until = time.Unix(sec, 0)
		}
		if id, err := identity.ParseID(text); err == nil && now.Before(until) {
			out[id] = until
		}
	}
	return out
}

// connected notes that a node hears now where this one is.
func (r *reach) connected(id identity.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hears(id)
}

// hears is connected; r.mu is held.
func (r *reach) hears(id identity.ID) {
	if u, ok := r.untold[id]; ok {
		u.connected = time.Now()
		r.untold[id] = u
		r.look()
	}
}

// disconnected notes that a node may have ended before it kept what it heard.
func (r *reach) disconnected(id identity.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u, ok := r.untold[id]; ok {
		u.connected = time.Time{}
		r.untold[id] = u
	}
}

// look has work look again.
func (r *reach) look() {
	select {
	case r.wake <- struct{}{}:
	default: // it is to look already
	}
}

// work lets go, until ctx ends, of those that need not be told any more.
func (r *reach) work(ctx context.Context) {
	for {
		fewer, next := r.settle(time.Now())
		if fewer {
			if err := r.keepUntold(ctx); err != nil && ctx.Err() == nil {
				r.n.d.log.Warn("cannot note which nodes know our addresses", "error", err)
			}
		}
		var due <-chan time.Time
		if next > 0 {
			due = time.After(next)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-due:
		}
	}
}

// settle forgets those that were told, or are not to be told any more, and tells when
// the next will have been; zero if none is connected.
func (r *reach) settle(now time.Time) (fewer bool, next time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, u := range r.untold {
		left := r.tellFor
		if !u.connected.IsZero() {
			left -= now.Sub(u.connected)
		}
		switch {
		case left <= 0 || !now.Before(u.until) || !r.n.store.NodeKnown(id):
			r.n.host.Unprotect(id, movedTag)
			delete(r.untold, id)
			fewer = true
		case !u.connected.IsZero() && (next == 0 || left < next):
			next = left
		}
	}
	return fewer, next
}

func (r *reach) keepUntold(ctx context.Context) error {
	r.keeping.Lock()
	defer r.keeping.Unlock()
	var ids []string
	r.mu.Lock()
	for id, u := range r.untold {
		ids = append(ids, fmt.Sprintf("%s@%d", id, u.until.Unix()))
	}
	r.mu.Unlock()
	return r.n.store.SetMeta(ctx, untoldKey, strings.Join(ids, " "))
}
