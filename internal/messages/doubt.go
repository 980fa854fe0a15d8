package messages

import (
	"context"
	"errors"
	"io/fs"
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
// then SQLite leaves its log, or its courier knew more than the disk.
func wasCut(path string) bool {
	log, err := os.Stat(path + "-wal")
	if err == nil && log.Size() > 0 {
		return true
	}
	_, err = os.Lstat(path + doubtSuffix)
	return err == nil
}

// doubtSuffix is of an empty file beside the database that is left at an end after
// which the next start is in doubt too.
const doubtSuffix = ".doubt"

// end records what the last batches brought, and leaves the doubt that there is.
func (c *Courier) end(ctx context.Context) {
	err := c.record(ctx)
	if err != nil {
		c.o.Log.Error("cannot record what became of messages", "error", err)
	}
	if err := c.s.leaveDoubt(err != nil || c.doubtful()); err != nil {
		c.o.Log.Error("cannot note that deliveries are in doubt", "error", err)
	}
}

// doubtful tells that some lanes were not tried yet that are in doubt.
func (c *Courier) doubtful() bool {
	select {
	case <-c.loaded:
		return len(c.lanes.doubts(nil)) > 0
	default:
		return c.s.WasCut()
	}
}

func (s *Store) leaveDoubt(is bool) error {
	s.mu.RLock()
	last := s.last
	s.mu.RUnlock()
	if last.InPlace() != nil { // what is there now is not ours
		return nil
	}
	path := s.path + doubtSuffix
	if !is {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
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
	if k != nil {
		if l := s.all[*k]; l != nil && l.doubt != nil {
			list = append(list, l.doubt)
		}
		return list
	}
	for _, l := range s.all {
		if l.doubt != nil {
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
	if !c.doubtful() {
		return
	}
	if m, err := c.s.Outgoing(ctx, from, id); err == nil && m.State == Queued {
		k := m.Lane()
		c.afterDoubts(ctx, &k, doubtCancels)
	}
}
