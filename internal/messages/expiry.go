package messages

import (
	"context"
	"database/sql"
	"time"
)

// expireAll ends messages when their life is over, until ctx ends. What was queued
// before, or is not found by the index, is looked for at each of Timing.Expire.
func (c *Courier) expireAll(ctx context.Context) {
	jumped := false // the clock has
	look := time.NewTimer(0)
	defer look.Stop()
	last := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.brief:
		case <-look.C:
			by := c.s.Jump()
			if by != 0 && !jumped {
				c.o.Log.Warn("the clock has jumped: for an hour no message expires and none is forgotten", "by", by)
			}
			jumped = by != 0
			last = c.o.Now()
			c.expire(ctx)
		}
		next := last.Add(c.o.Timing.Expire)
		// What was over at the last look could not be ended: that waits for the next one.
		if end := c.s.nextEnd(ctx); end.After(last) && end.Before(next) {
			next = end
		}
		look.Reset(next.Sub(c.o.Now()))
	}
}

// noteBrief has expireAll look again, if one of list lives for less than its pause.
func (c *Courier) noteBrief(list []Message) {
	soon := c.o.Now().Add(c.o.Timing.Expire)
	for _, m := range list {
		if m.Expires.Before(soon) {
			select {
			case c.brief <- struct{}{}:
			default:
			}
			return
		}
	}
}

// nextEnd is when the life of a queued message is over next; zero if there is none, or
// it cannot be told.
func (s *Store) nextEnd(ctx context.Context) (end time.Time) {
	err := s.read(ctx, func(rows *sql.Rows) error {
		return each(rows, func(row []any) (bool, error) {
			c := columns{row: row}
			if at := c.time("expires"); c.bad == nil {
				end = at
			}
			return false, nil
		})
	}, "SELECT expires FROM outbox INDEXED BY outbox_expires WHERE state = 'queued' ORDER BY expires LIMIT 1")
	if err != nil {
		return time.Time{} // those who end messages tell it
	}
	return end
}
