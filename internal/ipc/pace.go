package ipc

import (
	"sync"
	"time"
)

const (
	// refusalCost is how much of a second one refused line uses up, and refusalKiB
	// what each KiB of it does: a line that is refused costs the daemon more than
	// whoever sends it, up to a thousand of them a second are answered at once.
	refusalCost = time.Millisecond
	refusalKiB  = refusalCost / 4
	// refusalBurst may be saved up.
	refusalBurst = 200 * time.Millisecond
	// longestPause bounds how long a connection that had lines refused is not read.
	longestPause = time.Second
)

// pace is how one uid pays for lines that are refused.
type pace struct {
	mu   sync.Mutex
	paid time.Time // until when it has paid
}

// pay tells how long to wait for what cost is.
func (p *pace) pay(now time.Time, cost time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if least := now.Add(-refusalBurst); p.paid.Before(least) {
		p.paid = least
	}
	if most := now.Add(longestPause); p.paid.Before(most) {
		p.paid = p.paid.Add(cost)
	}
	return min(p.paid.Sub(now), longestPause)
}

// pause has a client whose line was refused wait until its uid has paid for it. It
// runs on the reader.
func (c *conn) pause() {
	if c.refused == 0 {
		return
	}
	cost := refusalCost + time.Duration(c.refused>>10)*refusalKiB
	c.refused = 0
	wait := c.turns.pace.pay(time.Now(), cost)
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
