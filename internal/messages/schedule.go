package messages

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// due has a lane tried now, in which a message was queued anew.
func (s *lanes) due(k Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.get(k)
	s.forget(l)
	s.dueNow(l)
	s.launch()
}

func (s *lanes) dueNow(l *liveLane) {
	switch l.state {
	case laneRunning:
		l.again = true
	case laneWaiting:
		s.makeReady(l)
	}
}

// dueWhere has lanes tried now.
func (s *lanes) dueWhere(is func(*liveLane) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.all {
		if is(l) {
			s.dueNow(l)
		}
	}
	s.launch()
}

// reachable has the lanes to a receiver tried now, but for those where the
// receiver has to act first.
func (s *lanes) reachable(to identity.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.to[to] {
		if l.code != api.CodePending {
			s.dueNow(l)
		}
	}
	s.launch()
}

func (s *lanes) makeReady(l *liveLane) {
	if l.place >= 0 {
		heap.Remove(&s.waiting, l.place)
	}
	l.state = laneReady
	if len(s.ready[l.of]) == 0 {
		s.ring = append(s.ring, l.of)
	}
	s.ready[l.of] = append(s.ready[l.of], l)
}

// launch has carriers take the lanes whose turn it is.
func (s *lanes) launch() {
	for s.carry != nil {
		l := s.pick()
		if l == nil {
			return
		}
		carry := s.carry
		s.wg.Add(1)
		s.crew.Go(func() {
			defer s.wg.Done()
			defer s.ran(l)
			carry(l)
		})
	}
}

// kick has run look at the heap again.
func (s *lanes) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run has carriers carry lanes until ctx ends, and waits for them.
func (s *lanes) run(ctx context.Context, carry func(*liveLane)) {
	s.mu.Lock()
	s.carry = carry
	s.mu.Unlock()
	defer s.rest()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.mu.Lock()
		for len(s.waiting) > 0 && !s.waiting[0].next.After(s.now()) {
			s.makeReady(s.waiting[0])
		}
		s.launch()
		if len(s.waiting) > 0 {
			timer.Reset(s.waiting[0].next.Sub(s.now()))
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
	}
}

// rest ends all carriers.
func (s *lanes) rest() {
	s.mu.Lock()
	s.carry = nil
	s.mu.Unlock()
	s.wg.Wait()
	s.crew.Close()
}

// pick takes the next lane, of the user whose turn it is.
func (s *lanes) pick() *liveLane {
	if s.busy >= carriers {
		return nil
	}
	for range len(s.ring) {
		who := s.ring[0]
		s.ring = s.ring[1:]
		if s.running[who] >= carriersEach {
			s.ring = append(s.ring, who)
			continue
		}
		list := s.ready[who]
		l := list[0]
		if s.ready[who] = list[1:]; len(list) == 1 {
			delete(s.ready, who)
		} else {
			s.ring = append(s.ring, who)
		}
		l.state = laneRunning
		s.running[who]++
		s.busy++
		return l
	}
	return nil
}

func (s *lanes) ran(l *liveLane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[l.of]--; s.running[l.of] == 0 {
		delete(s.running, l.of)
	}
	s.busy--
	s.launch()
}

// laneHeap is the waiting lanes, the first due first.
type laneHeap []*liveLane

func (h laneHeap) Len() int { return len(h) }

func (h laneHeap) Less(i, j int) bool { return h[i].next.Before(h[j].next) }

func (h laneHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *laneHeap) Push(x any) {
	l := x.(*liveLane)
	l.place = len(*h)
	*h = append(*h, l)
}

func (h *laneHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.place = -1
	return l
}

// jitter spreads d by a fifth either way, so that many do not come as one.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(d*2/5+1)
}
