package remote

import (
	"context"
	"sync"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// turns has each identity's mail taken one frame at a time: to read and store one
// is work for the processor, and Go's scheduler, which knows no senders, would
// have everybody wait behind many of one.
type turns struct {
	mu sync.Mutex
	of map[identity.ID]*turn
}

type turn struct {
	held  chan struct{} // holds one while somebody has the turn
	users int           // that have it or wait; guarded by turns.mu
}

// take waits for id's turn, or for the end of ctx.
func (s *turns) take(ctx context.Context, id identity.ID) (release func(), err error) {
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
		return func() { <-t.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
