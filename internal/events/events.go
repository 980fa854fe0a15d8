// Package events tells subscribers what happens, each only what concerns them.
package events

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// kept bounds the events that a cursor can reach back to.
const kept = 4096

// Hub keeps the latest events and wakes those who wait for the next. Cursors
// start at the time of its making in µs, so that one of an earlier daemon lies
// before all of its own and shows as a gap. It is safe for concurrent use.
type Hub struct {
	now func() time.Time

	mu   sync.Mutex
	last uint64
	lost uint64  // events up to this cursor are not kept
	ring []entry // oldest first, at most kept
	news chan struct{}
}

type entry struct {
	event api.Event
	uids  []uint32 // who may see it; everyone if empty
}

// New returns an empty Hub.
func New(now func() time.Time) *Hub {
	start := uint64(now().UnixMicro())
	return &Hub{now: now, last: start, lost: start, news: make(chan struct{})}
}

// Publish tells e to the users in uids, to all if there are none. Cursor and
// Time are set here. It never blocks on a subscriber.
func (h *Hub) Publish(e api.Event, uids ...uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e.Cursor, e.Time = h.last, h.now()
	if len(h.ring) == kept {
		h.lost = h.ring[kept/4-1].event.Cursor
		h.ring = slices.Delete(h.ring, 0, kept/4)
	}
	h.ring = append(h.ring, entry{e, uids})
	close(h.news)
	h.news = make(chan struct{})
}

// Cursor is that of the latest event.
func (h *Hub) Cursor() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// Next waits for events behind cursor that uid may see and that are of one of
// kinds (any if empty). It returns them with the cursor to go on from. The
// first has Gap set if events behind cursor are not kept any more. The error is
// ctx's.
func (h *Hub) Next(ctx context.Context, uid uint32, kinds []string, cursor uint64) ([]api.Event, uint64, error) {
	for {
		h.mu.Lock()
		news, last := h.news, h.last
		gap := cursor < h.lost
		var out []api.Event
		for _, e := range h.ring {
			seen := len(e.uids) == 0 || slices.Contains(e.uids, uid)
			wanted := len(kinds) == 0 || slices.Contains(kinds, e.event.Kind)
			if e.event.Cursor > cursor && seen && wanted {
				out = append(out, e.event)
			}
		}
		h.mu.Unlock()
		if len(out) > 0 {
			out[0].Gap = gap
			return out, last, nil
		}
		if !gap {
			// Nothing for this subscriber so far: look only at what is new.
			cursor = max(cursor, last)
		}
		select {
		case <-ctx.Done():
			return nil, cursor, ctx.Err()
		case <-news:
		}
	}
}
