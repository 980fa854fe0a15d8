package messages

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/crew"
	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// carriers bounds the lanes that are delivered at the same time, carriersEach
	// those of one user, whatever identities he has: one whose receivers answer
	// slowly holds up nobody else.
	carriers     = 256
	carriersEach = 16
	// freshBytes bounds the data of messages that are kept for their carriers.
	freshBytes = 4 << 20
)

// liveLane is a lane that has, or may have, queued messages. Its fields are guarded by
// lanes.mu, but for tries, which is its carrier's while it runs.
type liveLane struct {
	Lane
	of    user // who sends
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
	hints  hints
	doubt  chan struct{} // closed after the first try, if what is queued may be delivered; see doubt.go
	// fresh are messages that were queued since a carrier looked last, in order.
	// While whole they are all that the lane holds, and the disk need not be read.
	fresh []Message
	size  int // of their data
	whole bool
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
	ready   map[user][]*liveLane
	ring    []user // those in ready, in turn
	running map[user]int
	busy    int
	wake    chan struct{}
	now     func() time.Time
	owner   func(identity.ID) (uint32, bool)
	loaded  bool // what the disk knew at the start is in all
	kept    int  // bytes in fresh
	doubted int  // lanes in doubt
	cut     bool // what is loaded first is in doubt; see doubt.go

	crew  crew.Crew
	carry func(*liveLane) // nil unless it runs
	wg    sync.WaitGroup  // of carriers
}

func (s *lanes) init(now func() time.Time, owner func(identity.ID) (uint32, bool)) {
	s.now, s.owner = now, owner
	s.all = make(map[Lane]*liveLane)
	s.to = make(map[identity.ID]map[*liveLane]struct{})
	s.ready = make(map[user][]*liveLane)
	s.running = make(map[user]int)
	s.wake = make(chan struct{}, 1)
}

// soonTries is what a lane's tries count for at most after a start: the pauses of an
// earlier run say nothing of how long a peer that came up with this machine, or a moment
// after it, is away.
const soonTries = 4

// load takes in what the disk knows and s does not. Each lane is tried within most.
func (s *lanes) load(list []Waiting, most time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	doubt := s.cut && !s.loaded
	s.loaded = true
	for _, w := range list {
		l := s.get(w.Lane)
		if doubt {
			s.inDoubt(l)
		}
		if l.state != laneWaiting || l.place >= 0 { // something was sent already
			s.forget(l) // the disk may have more than was known
			continue
		}
		// The clock may have been wrong when that was written, too.
		l.tries, l.code, l.next = min(w.Tries, soonTries), w.Code, s.now().Add(min(w.NextTry.Sub(s.now()), rand.N(most)))
		if l.code == api.CodePending {
			l.next = s.now() // the word that it is taken now may have come just before the end
		}
		if doubt {
			l.next = s.now()
		}
		heap.Push(&s.waiting, l)
	}
	s.kick()
}

// get finds or makes a lane; a new one waits, but is not in the heap.
func (s *lanes) get(k Lane) *liveLane {
	l := s.all[k]
	if l == nil {
		l = &liveLane{Lane: k, of: userOf(s.owner, k.From), place: -1}
		s.all[k] = l
		if s.to[k.To] == nil {
			s.to[k.To] = make(map[*liveLane]struct{})
		}
		s.to[k.To][l] = struct{}{}
	}
	return l
}

// queued notes new messages. A lane that waits is tried a little sooner for them.
// Of each fresh is told, and whether it is carried now, before it is; it must not wait.
func (s *lanes) queued(list []Message, near time.Duration, fresh func(m Message, now bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range list {
		k := m.Lane()
		_, known := s.all[k]
		l := s.get(k)
		l.whole = l.whole || !known && s.loaded // one that is not known holds nothing
		s.keep(l, m)
		s.came(l, near)
		fresh(m, l.state != laneWaiting)
	}
	s.launch()
}

// keep keeps m for the carrier, if there is room.
func (s *lanes) keep(l *liveLane, m Message) {
	switch {
	case !l.whole:
	case len(l.fresh) == maxLetters || l.size+len(m.Data) > api.MaxPayload || s.kept+len(m.Data) > freshBytes:
		s.forget(l)
	default:
		l.fresh = append(l.fresh, m)
		l.size += len(m.Data)
		s.kept += len(m.Data)
	}
}

// forget has the lane read from the disk when its turn comes.
func (s *lanes) forget(l *liveLane) {
	s.take(l)
	l.whole = false
}

// take takes what is kept for the carrier.
func (s *lanes) take(l *liveLane) []Message {
	list := l.fresh
	s.kept -= l.size
	l.fresh, l.size = nil, 0
	return list
}

// changed notes that a message of the lane is not what it was.
func (s *lanes) changed(k Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.all[k]; l != nil {
		s.forget(l)
	}
}

// forgetWhere has lanes read from the disk when their turn comes.
func (s *lanes) forgetWhere(is func(*liveLane) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.all {
		if is(l) {
			s.forget(l)
		}
	}
}

// asked has a lane tried a little sooner, if it waits: somebody sent one of its
// messages again.
func (s *lanes) asked(k Lane, near time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.all[k]; l != nil {
		s.came(l, near)
	}
}

func (s *lanes) came(l *liveLane, near time.Duration) {
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

// begin is called by a carrier before it looks for messages. It gives those of the
// lane, if it is whole: then they need not be looked for on the disk. Otherwise it
// is whole from now on, with what the carrier finds there and what comes meanwhile.
// In doubt it finds what has expired as well.
func (s *lanes) begin(l *liveLane) (list []Message, whole, doubt bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.again, l.hinted = false, false
	if l.whole {
		return s.take(l), true, false
	}
	l.whole = true
	return nil, false, l.doubt != nil
}

// found tells what a carrier found on the disk: more if not all, else the last of
// what was there, which may have come meanwhile too.
func (s *lanes) found(l *liveLane, last int64, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if more {
		s.forget(l)
		return
	}
	for _, m := range s.take(l) {
		if m.Seq > last {
			s.keep(l, m)
		}
	}
}

// done ends a lane that was found empty, unless something came meanwhile or the disk
// is to be read first.
func (s *lanes) done(l *liveLane) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.again || !l.whole {
		return false
	}
	s.sure(l)
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
	l.tries, l.code, l.hints = 0, "", hints{}
}

// yield lets others go first.
func (s *lanes) yield(l *liveLane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sure(l)
	s.makeReady(l)
	s.launch()
}

// wait has a lane tried again after d.
func (s *lanes) wait(l *liveLane, d time.Duration, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits(l, d, why)
}

func (s *lanes) waits(l *liveLane, d time.Duration, why error) {
	s.forget(l)
	s.sure(l)
	l.tries++
	l.code, l.tried = api.CodeOf(why), s.now()
	l.next = l.tried.Add(d)
	l.state = laneWaiting
	l.hints.waits(l.tried)
	heap.Push(&s.waiting, l)
	switch {
	case l.hinted:
		s.hint(l)
	case l.again && (l.code == api.CodeNotPermitted || l.code != api.CodePending && l.tries <= 1): // it may be permitted since
		s.makeReady(l)
		s.launch()
	}
	s.kick()
}
