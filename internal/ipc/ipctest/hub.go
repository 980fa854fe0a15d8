package ipctest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// Hub keeps the latest events.
type Hub struct {
	mu   sync.Mutex
	ring []api.Event
	lost uint64
	last uint64
	news chan struct{}
}

const keptEvents = 100

func newHub() *Hub { return &Hub{news: make(chan struct{})} }

// Publish tells e to all.
func (h *Hub) Publish(e api.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e.Cursor, e.Time = h.last, time.Now()
	h.ring = append(h.ring, e)
	if len(h.ring) > keptEvents {
		h.lost = h.ring[0].Cursor
		h.ring = slices.Delete(h.ring, 0, 1)
	}
	close(h.news)
	h.news = make(chan struct{})
}

func (h *Hub) cursor() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

func (h *Hub) next(ctx context.Context, kinds []string, cursor uint64) ([]api.Event, uint64, error) {
	for {
		h.mu.Lock()
		news, last, gap := h.news, h.last, cursor < h.lost
		var out []api.Event
		for _, e := range h.ring {
			if e.Cursor > cursor && (len(kinds) == 0 || slices.Contains(kinds, e.Kind)) {
				out = append(out, e)
			}
		}
		h.mu.Unlock()
		if len(out) > 0 {
			out[0].Gap = gap
			return out, last, nil
		}
		select {
		case <-ctx.Done():
			return nil, cursor, ctx.Err()
		case <-news:
		}
	}
}
