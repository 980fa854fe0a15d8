package remote

import (
	"context"
	"maps"
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
	rest  time.Time     // nobody has it before; guarded by turns.mu
}

// mostRest bounds the rest behind a frame.
const mostRest = 250 * time.Millisecond

// take waits for id's turn, or for the end of ctx. release does not wait; full tells
// that a rest is due.
func (s *turns) take(ctx context.Context, id identity.ID) (release func(full bool), err error) {
	t := s.enter(id)
	select {
	case t.held <- struct{}{}:
	case <-ctx.Done():
		s.leave(id, t)
		return nil, ctx.Err()
	}
	if err := sleepUntil(ctx, s.rest(t)); err != nil {
		s.leave(id, t)
		<-t.held
		return nil, err
	}
	began := time.Now()
	return func(full bool) {
		if full {
			now := time.Now()
			s.mu.Lock()
			t.rest = now.Add(min(now.Sub(began), mostRest))
			s.mu.Unlock()
		}
		s.leave(id, t)
		<-t.held
	}, nil
}

func (s *turns) enter(id identity.ID) *turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = make(map[identity.ID]*turn)
	}
	t := s.of[id]
	if t == nil {
		now := time.Now()
		maps.DeleteFunc(s.of, func(_ identity.ID, t *turn) bool { return t.idle(now) })
		t = &turn{held: make(chan struct{}, 1)}
		s.of[id] = t
	}
	t.users++
	return t
}

// leave is for who has the turn, or stops waiting. A rest is remembered.
func (s *turns) leave(id identity.ID, t *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.users--; t.idle(time.Now()) {
		delete(s.of, id)
	}
}

func (s *turns) rest(t *turn) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.rest
}

func (t *turn) idle(now time.Time) bool { return t.users == 0 && !t.rest.After(now) }

func sleepUntil(ctx context.Context, when time.Time) error {
	d := time.Until(when)
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
