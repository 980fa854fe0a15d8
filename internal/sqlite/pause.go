package sqlite

import (
	"slices"
	"time"
)

const (
	// pauseFirst is the shortest pause between repairs, which doubles up to pauseMost.
	pauseFirst = time.Minute
	pauseMost  = time.Hour
)

// Pause keeps a disk that damages everything from having a database repaired for
// ever: with each repair within the last hour the next has to wait longer. The
// zero value is usable, by one goroutine at a time.
type Pause struct {
	Free  int // repairs within an hour without a pause, one if zero
	times []time.Time
}

// Left tells how long the next repair has to wait; 0 if it may begin.
func (p *Pause) Left(now time.Time) time.Duration {
	p.times = slices.DeleteFunc(p.times, func(t time.Time) bool { return now.Sub(t).Abs() >= pauseMost })
	more := len(p.times) - max(1, p.Free)
	if more < 0 {
		return 0
	}
	wait := pauseMost
	if more < 6 { // 32 minutes
		wait = pauseFirst << more
	}
	return max(0, wait-now.Sub(p.times[len(p.times)-1]).Abs())
}

// Note counts a repair, whether or not it succeeded.
func (p *Pause) Note(now time.Time) { p.times = append(p.times, now) }
