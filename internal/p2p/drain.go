package p2p

import (
	"context"
	"sync"
)

// drain lets peers have the answers that are under way, for Timing.Drain at most:
// a transport that is closed forgets what it has not sent. A peer that has read
// the end of a request stream resets it, and has all answers then.
func (h *Host) drain() {
	ctx, cancel := context.WithTimeout(h.ctx, h.o.Timing.Drain)
	defer cancel()
	var begun []*requestStream
	for _, c := range h.conns.list() {
		for _, r := range c.requests.list() {
			if h.tasks.run(func() { r.drain(ctx) }) {
				begun = append(begun, r)
			}
		}
	}
	for _, r := range begun {
		select {
		case <-r.over:
		case <-ctx.Done():
			return
		}
	}
}

// drain ends the stream once its requests are answered.
func (r *requestStream) drain(ctx context.Context) {
	select {
	case <-r.idle():
	case <-ctx.Done():
		return
	}
	if r.out.end(ctx) != nil {
		r.cancel()
		_ = r.s.Reset()
	}
}

// requestStreams are those that a peer opened on a connection.
type requestStreams struct {
	mu   sync.Mutex
	open map[*requestStream]struct{}
}

// add is false if there are too many.
func (l *requestStreams) add(r *requestStream) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= maxRequestStreams {
		return false
	}
	if l.open == nil {
		l.open = make(map[*requestStream]struct{})
	}
	l.open[r] = struct{}{}
	return true
}

func (l *requestStreams) remove(r *requestStream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, r)
}

func (l *requestStreams) list() []*requestStream {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*requestStream
	for r := range l.open {
		out = append(out, r)
	}
	return out
}
