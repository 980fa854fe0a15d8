package sqlite

import (
	"sync"
	"time"
)

// Progress tells from outside whether databases are being opened, and that it gets
// on: with a large file that is damaged, Open takes minutes. Safe for concurrent
// use; a nil one notes nothing.
type Progress struct {
	mu          sync.Mutex
	running     int
	since, last time.Time
}

// Working tells since when one Open at least has been running, and when the last
// sign came that it gets on; ok is false if none runs. Some single statements give
// no sign for as long as it takes to read the whole file.
func (p *Progress) Working() (since, last time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since, p.last, p.running > 0
}

// begin notes one Open; end its end.
func (p *Progress) begin() (end func()) {
	if p == nil {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running++
	p.last = time.Now()
	if p.running == 1 {
		p.since = p.last
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running--
	}
}

// step is a sign of life.
func (p *Progress) step() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
}
