package messages

import (
	"context"
	"sync"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
)

// service is what a program serves.
type service struct {
	owner              identity.ID
	protocol, instance string
}

// mailmen bring the messages of a program's protocol to the program: those of one
// sender in order, each until it is acknowledged, again where the program ended
// before.
type mailmen struct {
	c *Courier

	mu  sync.Mutex
	of  map[service]*mailman
	ctx context.Context // of run, nil before it
	wg  sync.WaitGroup
}

// mailman serves one program.
type mailman struct {
	service
	h      router.Handler
	poke   chan struct{}
	cancel context.CancelFunc // nil until it works
}

func (s *mailmen) init(c *Courier) { s.c, s.of = c, make(map[service]*mailman) }

// run has each mailman work until its program ends or ctx does.
func (s *mailmen) run(ctx context.Context) {
	s.mu.Lock()
	s.ctx = ctx
	for _, m := range s.of {
		s.start(m)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock() // who starts one behind this sees that ctx has ended
	defer s.mu.Unlock()
	s.wg.Wait()
}

// start is called with mu held.
func (s *mailmen) start(m *mailman) {
	if s.ctx == nil || s.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	m.cancel = cancel
	s.wg.Go(func() { newRound(s.c, m).run(ctx) })
}

// Attend has h, a program that listens, told of its messages until leave.
func (c *Courier) Attend(owner identity.ID, protocol, instance string, h router.Handler) (leave func()) {
	s := &c.mailmen
	m := &mailman{service: service{owner, protocol, instance}, h: h, poke: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[m.service] = m
	s.start(m)
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if m.cancel != nil {
			m.cancel()
		}
		if s.of[m.service] == m {
			delete(s.of, m.service)
		}
	})
}

// poke tells the program's mailman of new mail; false if there is none.
func (s *mailmen) poke(k service) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.of[k]
	if m == nil {
		return false
	}
	select {
	case m.poke <- struct{}{}:
	default:
	}
	return true
}
