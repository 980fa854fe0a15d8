package messages

import (
	"context"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// service is what a program serves.
type service struct {
	owner              identity.ID
	protocol, instance string
}

// mailmen bring the messages of a program's protocol to the program: in order,
// each until it is acknowledged, again where the program ended before.
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
	s.wg.Go(func() { s.work(ctx, m) })
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

const (
	mailmanPage = 64
	// A program that answers with an error is told again after a pause, which
	// doubles; other senders' messages go on.
	againMin = time.Second
	againMax = 5 * time.Minute
)

// held is a sender whose first message the program would not have so far.
type held struct {
	until time.Time
	pause time.Duration
}

func (s *mailmen) work(ctx context.Context, m *mailman) {
	back := make(map[identity.ID]held)
	for ctx.Err() == nil {
		told, err := s.round(ctx, m, back)
		if err != nil && ctx.Err() == nil {
			s.c.o.Log.Error("cannot bring a program its messages", "protocol", m.protocol, "error", err)
		}
		if told > 0 && err == nil {
			continue
		}
		timer := time.NewTimer(s.nextLook(back, err))
		select {
		case <-ctx.Done():
		case <-m.poke:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// nextLook is when something may be told again that nothing new announces.
func (s *mailmen) nextLook(back map[identity.ID]held, err error) time.Duration {
	d := againMax
	if err != nil {
		d = againMin
	}
	for _, h := range back {
		d = min(d, max(h.until.Sub(s.c.o.Now()), time.Millisecond))
	}
	return d
}

// round tells the program of what waits, once through, and how many it took.
func (s *mailmen) round(ctx context.Context, m *mailman, back map[identity.ID]held) (told int, err error) {
	skip := make(map[identity.ID]bool) // order is kept: none before one that was held back
	for after := int64(0); ctx.Err() == nil; {
		list, err := s.c.s.Waiting(ctx, m.owner, m.protocol, m.instance, Page{After: after, Limit: mailmanPage, MaxBytes: api.MaxPayload})
		if err != nil || len(list) == 0 {
			return told, err
		}
		for _, one := range list {
			if ctx.Err() != nil {
				return told, nil // what it would be told now it could not answer
			}
			after = one.Seq
			if h, ok := back[one.From]; skip[one.From] || ok && h.until.After(s.c.o.Now()) {
				skip[one.From] = true
				continue
			}
			took, err := s.tell(ctx, m, one)
			if err != nil {
				return told, err
			}
			if took {
				told++
				delete(back, one.From)
				continue
			}
			if ctx.Err() != nil {
				return told, nil
			}
			skip[one.From] = true
			pause := min(max(2*back[one.From].pause, againMin), againMax)
			back[one.From] = held{s.c.o.Now().Add(pause), pause}
		}
	}
	return told, nil
}

// tell gives the program one message; took tells that it acknowledged it.
func (s *mailmen) tell(ctx context.Context, m *mailman, one Incoming) (took bool, err error) {
	_, refused := m.h.Serve(ctx, &router.Request{From: one.From, To: one.To, Protocol: one.Protocol, Instance: one.Instance,
		Kind: router.Message, Payload: one.Data, MessageID: one.ID})
	if refused != nil {
		return false, nil
	}
	return true, s.c.s.Acknowledge(context.WithoutCancel(ctx), one.To, one.From, one.ID)
}
