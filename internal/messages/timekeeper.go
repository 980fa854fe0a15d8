package messages

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/sqlite"
)

const (
	// maxJump is how far the clock may be from where it should be by now.
	maxJump = 24 * time.Hour
	// doubtFor is how long a clock that jumped further is doubted: one that was set
	// wrong is set right in that time, at best.
	doubtFor = time.Hour
	// noteTime is the pause between two records of the time.
	noteTime = time.Minute
)

// timekeeper finds out when the clock has jumped. What ends or forgets messages by
// the time of day does nothing then: a clock that was wrong once must not end all
// that is queued, nor have known ids forgotten. The time is kept on the disk with
// what is committed anyway, so that this is known at the start too; a machine that
// was off, or slept, for longer than maxJump is doubted like any other.
type timekeeper struct {
	uptime func() time.Duration

	mu    sync.Mutex
	wall  time.Time     // the last time that was believed; zero: none so far
	up    time.Duration // uptime at that moment
	doubt bool
	since time.Duration // uptime when doubt began
	noted time.Time     // on the disk
}

// jump tells how far now is from where the clock should be, 0 if it is believed.
func (k *timekeeper) jump(now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	up := k.uptime()
	if !k.wall.IsZero() {
		by := now.Sub(k.wall) - (up - k.up)
		far := by > maxJump || by < -maxJump
		if far && !k.doubt {
			k.doubt, k.since = true, up
		}
		if far && up-k.since < doubtFor {
			return by
		}
	}
	k.wall, k.up, k.doubt = now, up, false
	return 0
}

// note puts the time on the disk, in a row that the counters do not use.
func (k *timekeeper) note(tx *sqlite.Tx, now time.Time) error {
	if k.jump(now) != 0 {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.noted).Abs() < noteTime {
		return nil
	}
	k.noted = now
	_, err := tx.Exec(`INSERT INTO usage (kind, owner, peer, messages, bytes) VALUES (?, x'', x'', ?, 0)
		ON CONFLICT (kind, owner, peer) DO UPDATE SET messages = excluded.messages`, int64(lastTime), now.UnixMicro())
	return err
}

// load takes what the disk has, unless this run knows better.
func (k *timekeeper) load(ctx context.Context, db *sqlite.DB) error {
	return db.View(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, "SELECT messages FROM usage WHERE kind = ? AND owner = x'' AND peer = x''", int64(lastTime))
		if err != nil {
			return err
		}
		return each(rows, func(row []any) (bool, error) {
			c := columns{row: row}
			last := c.time("messages")
			k.mu.Lock()
			defer k.mu.Unlock()
			if c.bad == nil && k.wall.IsZero() {
				k.wall, k.up, k.noted = last, k.uptime(), last
			}
			return false, nil
		})
	})
}

// clock tells the time, and whether that is believed.
func (s *Store) clock() (now time.Time, believed bool) {
	now = s.now()
	return now, s.time.jump(now) == 0
}

// Jump tells how far the clock has jumped, forwards or backwards; 0 once it is
// believed. While it is not, Expire and Prune do nothing.
func (s *Store) Jump() time.Duration { return s.time.jump(s.now()) }
