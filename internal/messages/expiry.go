package messages

import (
	"context"
	"database/sql"
	"time"
)

// expireAgain is the pause where a message's life is over and could not be ended.
const expireAgain = time.Second

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
			c.expire(ctx)
			last = c.o.Now()
		}
		now := c.o.Now()
		wait := last.Add(c.o.Timing.Expire).Sub(now)
		if end := c.s.nextEnd(ctx); !end.IsZero() {
			wait = min(wait, end.Sub(now))
		}
		look.Reset(max(wait, expireAgain))
	}
}

// noteBrief has expireAll look again, if one of list lives for less than its pause.
func (c *Courier) noteBrief(list []Message) {
	for _, m := range list {
		if m.Expires.Sub(c.o.Now()) < c.o.Timing.Expire {
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
			end = c.time("expires")
			return false, nil
		})
	}, "SELECT expires FROM outbox INDEXED BY outbox_expires WHERE state = 'queued' ORDER BY expires LIMIT 1")
	if err != nil {
		return time.Time{} // those who end messages tell it
	}
	return end
}
