// Package events tells subscribers what happens, each only what concerns them.
package events

import (
	"context"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// kept bounds the events of one user, and of those for everybody, that a cursor
// can reach back to.
const kept = 512

// Hub keeps the latest events of each user and wakes those who wait for the
// next. A user who makes many pushes out none of another's. Cursors start at the
// time of its making in µs, so that one of an earlier daemon lies before all of
// its own and shows as a gap. It is safe for concurrent use.
type Hub struct {
	now   func() time.Time
	start uint64

	mu     sync.Mutex
	last   uint64
	all    ring // for everybody
	byUser map[uint32]*ring
}

// ring holds the latest events, oldest first.
type ring struct {
	events []api.Event
	lost   uint64        // events up to this cursor are not kept
	news   chan struct{} // closed by the next event
}

func newRing(lost uint64) *ring { return &ring{lost: lost, news: make(chan struct{})} }

func (r *ring) add(e api.Event) {
	if len(r.events) == kept {
		const drop = kept / 4
		r.lost = r.events[drop-1].Cursor
		r.events = slices.Delete(r.events, 0, drop)
	}
	r.events = append(r.events, e)
	close(r.news)
	r.news = make(chan struct{})
}

// since returns the events behind cursor; they are the ring's.
func (r *ring) since(cursor uint64) []api.Event {
	i := sort.Search(len(r.events), func(i int) bool { return r.events[i].Cursor > cursor })
	return r.events[i:]
}

// New returns an empty Hub.
func New(now func() time.Time) *Hub {
	start := uint64(now().UnixMicro())
	return &Hub{now: now, start: start, last: start, all: *newRing(start), byUser: make(map[uint32]*ring)}
}

// Publish tells e to the users in uids, to all if there are none. Cursor and
// Time are set here. It never blocks on a subscriber.
func (h *Hub) Publish(e api.Event, uids ...uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e.Cursor, e.Time = h.last, h.now()
	if len(uids) == 0 {
		h.all.add(e)
	}
	for _, uid := range uids {
		h.of(uid).add(e)
	}
}

func (h *Hub) of(uid uint32) *ring {
	r := h.byUser[uid]
	if r == nil {
		r = newRing(h.start)
		h.byUser[uid] = r
	}
	return r
}

// Cursor is that of the latest event.
func (h *Hub) Cursor() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// Next waits for events behind cursor that uid may see and that are of one of
// kinds (any if empty). It returns them with the cursor to go on from. Where
// events behind cursor are not kept any more, or cursor is none of this Hub's,
// the first has Gap set; if there is none, one of kind api.EventGap is told at
// once. The error is ctx's.
func (h *Hub) Next(ctx context.Context, uid uint32, kinds []string, cursor uint64) ([]api.Event, uint64, error) {
	for {
		out, last, news := h.look(uid, kinds, cursor)
		if len(out) > 0 {
			return out, last, nil
		}
		// Nothing for this subscriber so far: look only at what is new.
		cursor = last
		select {
		case <-ctx.Done():
			return nil, cursor, ctx.Err()
		case <-news[0]:
		case <-news[1]:
		}
	}
}

func (h *Hub) look(uid uint32, kinds []string, cursor uint64) (out []api.Event, last uint64, news [2]chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	own := h.of(uid)
	// A cursor ahead of ours is from before a clock was set back.
	gap := cursor < own.lost || cursor < h.all.lost || cursor > h.last
	if cursor > h.last {
		cursor = 0
	}
	for _, e := range append(slices.Clone(own.since(cursor)), h.all.since(cursor)...) {
		if len(kinds) == 0 || slices.Contains(kinds, e.Kind) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b api.Event) int { return int(a.Cursor) - int(b.Cursor) })
	switch {
	case gap && len(out) == 0:
		out = []api.Event{{Cursor: h.last, Time: h.now(), Kind: api.EventGap, Gap: true, Text: "earlier events are not kept any more"}}
	case gap:
		out[0].Gap = true
	}
	return out, h.last, [2]chan struct{}{own.news, h.all.news}
}
