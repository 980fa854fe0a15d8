package messages

import (
	"container/heap"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

const (
	hintPause     = time.Second // after a try that a hint brought about and that failed; it doubles
	hintPauseMost = 10 * time.Minute
)

// hints is how a lane follows its receiver's word that it takes its mail now. The
// first is followed at once. A try costs us up to 1 MiB, and the word costs next to
// nothing, so where it proves to be untrue the next is followed later.
type hints struct {
	trying bool // the next try, or the one that runs, is due to a hint
	failed int  // such tries in turn
	next   time.Time
}

// waits notes at now that the lane waits again.
func (h *hints) waits(now time.Time) {
	if !h.trying {
		return
	}
	h.trying = false
	h.next = now.Add(min(hintPause<<min(h.failed, 20), hintPauseMost))
	h.failed++
}

// available has a lane tried whose receiver says that it takes its mail now.
func (s *lanes) available(k Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch l := s.all[k]; {
	case l == nil:
	case l.state == laneRunning:
		l.hinted, l.again = true, true
	case l.state == laneWaiting && l.place >= 0 && l.code == api.CodePending:
		s.hint(l)
	}
}

// hint has a lane that waits tried as soon as a hint may be followed.
func (s *lanes) hint(l *liveLane) {
	l.hints.trying = true
	switch {
	case !l.hints.next.After(s.now()):
		s.makeReady(l)
		s.launch()
	case l.hints.next.Before(l.next):
		l.next = l.hints.next
		heap.Fix(&s.waiting, l.place)
		s.kick()
	}
}
