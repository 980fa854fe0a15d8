package messages

import (
	"context"
	"os"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// A message may be told as delivered a moment before that is on the disk. If the
// machine goes down in between, the message is queued again at the next start, and
// must not be told as expired or cancelled then: after an end that was none of ours
// every lane is tried first, with what has expired meanwhile, for its receiver knows.

const (
	doubtLasts   = 5 * time.Minute  // longest before messages expire all the same
	doubtCancels = 10 * time.Second // longest before one is cancelled all the same
)

// wasCut tells that the database at path was not closed by who had it open last:
// then SQLite leaves its log.
func wasCut(path string) bool {
	log, err := os.Stat(path + "-wal")
	return err == nil && log.Size() > 0
}

// WasCut tells that the store was not closed before it was opened.
func (s *Store) WasCut() bool { return s.cut }

// inDoubt has no message of a lane expire before it was tried.
func (s *lanes) inDoubt(l *liveLane) {
	l.doubt = make(chan struct{})
	l.again = l.again || l.state == laneRunning
	s.doubted++
}

// sure notes that a lane was tried.
func (s *lanes) sure(l *liveLane) {
	if l.doubt != nil {
		close(l.doubt)
		l.doubt = nil
		s.doubted--
	}
}

// doubts gives what ends when each lane that is in doubt was tried; of one lane, if
// k is not nil.
func (s *lanes) doubts(k *Lane) (list []<-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doubted == 0 {
		return nil
	}
	for _, l := range s.all {
		if l.doubt != nil && (k == nil || l.Lane == *k) {
			list = append(list, l.doubt)
		}
	}
	return list
}

// afterDoubts waits until each lane that is in doubt was tried, or k if it is not
// nil, but no longer than most.
func (c *Courier) afterDoubts(ctx context.Context, k *Lane, most time.Duration) {
	if !c.s.WasCut() {
		return
	}
	end := time.NewTimer(most)
	defer end.Stop()
	list := []<-chan struct{}{c.loaded}
	for i := 0; i < len(list); i++ {
		select {
		case <-list[i]:
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
		if i == 0 {
			list = append(list, c.lanes.doubts(k)...)
		}
	}
}

// doubtless returns when it is known whether a message was delivered before the
// start, or that cannot be known soon.
func (c *Courier) doubtless(ctx context.Context, from identity.ID, id string) {
	select {
	case <-c.loaded:
		if len(c.lanes.doubts(nil)) == 0 {
			return
		}
	default:
		if !c.s.WasCut() {
			return
		}
	}
	if m, err := c.s.Outgoing(ctx, from, id); err == nil && m.State == Queued {
		k := m.Lane()
		c.afterDoubts(ctx, &k, doubtCancels)
	}
}
