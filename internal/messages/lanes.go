package messages

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// carriers bounds the lanes that are delivered at the same time, carriersEach
	// those of one sender: one whose receivers answer slowly holds up nobody else.
	carriers     = 256
	carriersEach = 16
)

// liveLane is a lane that has, or may have, queued messages. Its fields are guarded by
// lanes.mu, but for tries, which is its carrier's while it runs.
type liveLane struct {
	Lane
	tries int
	code  api.Code  // why it waits
	tried time.Time // the last time
	next  time.Time // when it is due, while it waits
	place int       // in the heap while it waits, else -1
	state laneState
	again bool // queued or kicked while it was running
	// hinted: while it was running the receiver said that it takes its mail now.
	// The answer that is awaited may be an older one.
	hinted bool
}

type laneState uint8

const (
	laneWaiting laneState = iota // in the heap
	laneReady                    // in the ring
	laneRunning
)

// lanes decides which lane is carried next.
type lanes struct {
	mu      sync.Mutex
	all     map[Lane]*liveLane
	to      map[identity.ID]map[*liveLane]struct{}
	waiting laneHeap
	ready   map[identity.ID][]*liveLane // by sender
	ring    []identity.ID               // senders in ready, in turn
	running map[identity.ID]int
	busy    int
	wake    chan struct{}
	now     func() time.Time
}

func (s *lanes) init(now func() time.Time) {
	s.now = now
	s.all = make(map[Lane]*liveLane)
	s.to = make(map[identity.ID]map[*liveLane]struct{})
	s.ready = make(map[identity.ID][]*liveLane)
	s.running = make(map[identity.ID]int)
	s.wake = make(chan struct{}, 1)
}

// load takes in what the disk knows at the start.
func (s *lanes) load(list []Waiting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range list {
		l := s.get(w.Lane)
		if l.state != laneWaiting || l.place >= 0 {
			continue // something was sent already
		}
		l.tries, l.code, l.next = w.Tries, w.Code, w.NextTry
		if l.code == api.CodePending {
			l.next = s.now() // the word that it is taken now may have come just before the end
		}
		heap.Push(&s.waiting, l)
	}
}

// get finds or makes a lane; a new one waits, but is not in the heap.
func (s *lanes) get(k Lane) *liveLane {
	l := s.all[k]
	if l == nil {
		l = &liveLane{Lane: k, place: -1}
		s.all[k] = l
		if s.to[k.To] == nil {
			s.to[k.To] = make(map[*liveLane]struct{})
		}
		s.to[k.To][l] = struct{}{}
	}
	return l
}

// queued notes a new message. A lane that waits is tried a little sooner for it.
func (s *lanes) queued(k Lane, near time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.get(k)
	switch {
	case l.state == laneRunning:
		l.again = true
	case l.state == laneWaiting && l.place < 0:
		s.makeReady(l)
	case l.state == laneWaiting && l.code != api.CodePending:
		if sooner := l.tried.Add(near); sooner.Before(l.next) {
			l.next = sooner
			heap.Fix(&s.waiting, l.place)
			s.kick()
		}
	}
}

// due has a lane tried now.
func (s *lanes) due(k Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dueNow(s.get(k))
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
}

// available has a lane tried whose receiver says that it takes its mail now.
func (s *lanes) available(k Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.all[k]; l != nil && (l.state == laneRunning || l.code == api.CodePending) {
		l.hinted = l.state == laneRunning
		s.dueNow(l)
	}
}

func (s *lanes) makeReady(l *liveLane) {
	if l.place >= 0 {
		heap.Remove(&s.waiting, l.place)
	}
	l.state = laneReady
	if len(s.ready[l.From]) == 0 {
		s.ring = append(s.ring, l.From)
	}
	s.ready[l.From] = append(s.ready[l.From], l)
	s.kick()
}

func (s *lanes) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// begin is called by a carrier before it looks for messages.
func (s *lanes) begin(l *liveLane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.again, l.hinted = false, false
}

// done ends a lane that was found empty, unless something came meanwhile.
func (s *lanes) done(l *liveLane) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.again {
		return false
	}
	delete(s.all, l.Lane)
	if delete(s.to[l.To], l); len(s.to[l.To]) == 0 {
		delete(s.to, l.To)
	}
	return true
}

// went notes that a batch was answered.
func (s *lanes) went(l *liveLane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.tries, l.code = 0, ""
}

// yield lets others go first.
func (s *lanes) yield(l *liveLane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeReady(l)
}

// wait has a lane tried again after d.
func (s *lanes) wait(l *liveLane, d time.Duration, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.tries++
	l.code, l.tried = api.CodeOf(why), s.now()
	l.next = l.tried.Add(d)
	l.state = laneWaiting
	if l.again && l.code != api.CodePending && l.tries <= 1 || l.hinted {
		s.makeReady(l)
		return
	}
	heap.Push(&s.waiting, l)
	s.kick()
}

// run starts carriers until ctx ends, and waits for them.
func (s *lanes) run(ctx context.Context, carry func(*liveLane)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.mu.Lock()
		for len(s.waiting) > 0 && !s.waiting[0].next.After(s.now()) {
			s.makeReady(s.waiting[0])
		}
		for {
			l := s.pick()
			if l == nil {
				break
			}
			wg.Go(func() {
				defer s.ran(l)
				carry(l)
			})
		}
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

// pick takes the next lane, of the sender whose turn it is.
func (s *lanes) pick() *liveLane {
	if s.busy >= carriers {
		return nil
	}
	for range len(s.ring) {
		from := s.ring[0]
		s.ring = s.ring[1:]
		if s.running[from] >= carriersEach {
			s.ring = append(s.ring, from)
			continue
		}
		list := s.ready[from]
		l := list[0]
		if s.ready[from] = list[1:]; len(list) == 1 {
			delete(s.ready, from)
		} else {
			s.ring = append(s.ring, from)
		}
		l.state = laneRunning
		s.running[from]++
		s.busy++
		return l
	}
	return nil
}

func (s *lanes) ran(l *liveLane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[l.From]--; s.running[l.From] == 0 {
		delete(s.running, l.From)
	}
	s.busy--
	s.kick()
}

// laneHeap is the waiting lanes, the first due first.
type laneHeap []*liveLane

func (h laneHeap) Len() int           { return len(h) }
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
