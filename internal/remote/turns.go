package remote

import (
	"context"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// turns has each identity's mail taken one frame at a time: to read and store one
// is work for the processor, and Go's scheduler, which knows no senders, would
// have everybody wait behind many of one. Behind a full frame there is a rest as
// long as the work was, so that no sender has a processor for itself. Who sends what
// is queued hardly notices: to record what was answered, and to read what comes
// next, takes as long.
type turns struct {
	mu sync.Mutex
	of map[identity.ID]*turn
}

type turn struct {
	held  chan struct{} // holds one while somebody has the turn
	users int           // that have it or wait; guarded by turns.mu
}

// mostRest bounds the rest behind a frame.
const mostRest = 250 * time.Millisecond

// take waits for id's turn, or for the end of ctx. release does not wait; full tells
// that a rest is due.
func (s *turns) take(ctx context.Context, id identity.ID) (release func(full bool), err error) {
	s.mu.Lock()
	if s.of == nil {
		s.of = make(map[identity.ID]*turn)
	}
	t := s.of[id]
	if t == nil {
		t = &turn{held: make(chan struct{}, 1)}
		s.of[id] = t
	}
	t.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(s.of, id)
		}
	}
	select {
	case t.held <- struct{}{}:
		began, free := time.Now(), func() { <-t.held; leave() }
		return func(full bool) {
			if !full {
				free()
				return
			}
			time.AfterFunc(min(time.Since(began), mostRest), free)
		}, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
