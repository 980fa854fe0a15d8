package messages

import (
	"context"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// lookMost is the longest pause between tries to read which lanes there are.
const lookMost = time.Minute

// look reads which lanes have queued messages: at the start, after each repair, and
// now and then, as an index that was damaged may have hidden one. What cannot be
// read is tried until it can.
func (c *Courier) look(ctx context.Context) {
	pause := c.o.Timing.RetryMin
	for ctx.Err() == nil {
		next := c.o.Timing.Look
		if err := c.lookOnce(ctx); ctx.Err() != nil {
			return
		} else if err != nil {
			c.o.Log.Error("cannot read which messages wait to be delivered", "error", err)
			c.unread.Store(&err)
			next, pause = pause, min(2*pause, lookMost)
		} else {
			c.unread.Store(nil)
			pause = c.o.Timing.RetryMin
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-c.s.mended:
		}
		timer.Stop()
	}
}

// lookOnce has the whole file checked if messages are counted that no lane has.
func (c *Courier) lookOnce(ctx context.Context) error {
	waiting, err := c.s.Lanes(ctx)
	if err != nil {
		return err
	}
	c.lanes.load(waiting, c.o.Timing.RetryNear)
	c.once.Do(func() { close(c.loaded) })
	now := c.o.Now()
	if !c.hiddenMail(waiting) || !c.checked.IsZero() && now.Sub(c.checked).Abs() < checkEach {
		return nil
	}
	c.checked = now
	return c.s.CheckAll(ctx)
}

// checkEach is how often messages that are counted and not found have all checked.
const checkEach = time.Hour

// hiddenMail tells whether somebody has queued messages, and no lane.
func (c *Courier) hiddenMail(waiting []Waiting) bool {
	hidden := c.s.senders()
	for _, w := range waiting {
		delete(hidden, w.From)
	}
	c.lanes.mu.Lock()
	defer c.lanes.mu.Unlock()
	for k := range c.lanes.all { // what was sent meanwhile
		delete(hidden, k.From)
	}
	return len(hidden) > 0
}

// senders are those whose messages are queued, as they were counted.
func (s *Store) senders() map[identity.ID]struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make(map[identity.ID]struct{})
	for k, v := range s.use.snapshot() {
		if k.kind == queuedBy && v.messages > 0 {
			list[k.owner] = struct{}{}
		}
	}
	return list
}

// Trouble is why nothing is known of the messages that waited before the start, or
// before a repair, and so they are not delivered; nil if all is well. It is tried
// on and on.
func (c *Courier) Trouble() error {
	if err := c.unread.Load(); err != nil {
		return *err
	}
	return nil
}
