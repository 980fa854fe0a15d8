package ipc

import (
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/lru"
)

const (
	// refusalCost is how much of a second one refused line uses up, and refusalKiB
	// what each KiB of it does: a line that is refused costs the daemon more than
	// whoever sends it, up to a thousand of them a second are answered at once.
	refusalCost = time.Millisecond
	refusalKiB  = refusalCost / 4
	// connCost is what a connection uses up, refused or not: a program that does
	// nothing but connect and leave costs the daemon more than itself too.
	connCost = refusalCost / 4
	// refusalBurst may be saved up.
	refusalBurst = 200 * time.Millisecond
	// longestPause bounds how long a connection that had lines refused is not read.
	longestPause = time.Second
	// mostPaced is how many uids are remembered.
	mostPaced = 1024
)

// pace is how uids pay for connections and for lines that are refused: with time.
type pace struct {
	mu   sync.Mutex
	paid *lru.Map[uint32, time.Time] // until when each has paid
}

func newPace() *pace { return &pace{paid: lru.New[uint32, time.Time](mostPaced)} }

// pay tells how long uid is to wait for what cost is.
func (p *pace) pay(uid uint32, now time.Time, cost time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	paid, _ := p.paid.Get(uid)
	if least := now.Add(-refusalBurst); paid.Before(least) {
		paid = least
	}
	if most := now.Add(longestPause); paid.Before(most) {
		paid = paid.Add(cost)
	}
	p.paid.Put(uid, paid)
	return min(paid.Sub(now), longestPause)
}

// pause has a client whose line was refused wait until its uid has paid for it. It
// runs on the reader.
func (c *conn) pause() {
	if c.refused == 0 {
		return
	}
	cost := refusalCost + time.Duration(c.refused>>10)*refusalKiB
	c.refused = 0
	c.pay(c.caller.UID, cost)
}

// pay waits until uid has paid. It runs on the reader.
func (c *conn) pay(uid uint32, cost time.Duration) {
	wait := c.s.pace.pay(uid, time.Now(), cost)
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
	}
}
