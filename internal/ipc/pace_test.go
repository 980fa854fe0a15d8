package ipc

import (
	"testing"
	"time"
)

// Lines that are refused are free up to a burst, then each waits for its part of the
// time; nobody waits longer than the bound, what is saved up is bounded, and each
// uid pays for itself.
func TestPace(t *testing.T) {
	p := newPace()
	now := time.Unix(1_700_000_000, 0)
	free := 0
	for p.pay(1, now, refusalCost) <= 0 {
		free++
	}
	if free != int(refusalBurst/refusalCost) {
		t.Errorf("%d lines are refused at once", free)
	}
	if wait := p.pay(1, now, refusalCost); wait != 2*refusalCost {
		t.Errorf("the next but one waits %v", wait)
	}
	for range 10_000 {
		if wait := p.pay(1, now, 10*refusalCost); wait > longestPause {
			t.Fatalf("a pause of %v", wait)
		}
	}
	now = now.Add(time.Hour)
	if wait := p.pay(1, now, refusalBurst); wait > 0 {
		t.Errorf("after an hour it still waits %v", wait)
	}
	if wait := p.pay(1, now, refusalCost); wait != refusalCost {
		t.Errorf("more than a burst was saved up: %v", wait)
	}
	if wait := p.pay(2, now, refusalCost); wait > 0 {
		t.Errorf("another uid waits %v", wait)
	}
}

// Beyond the bound each connection has one line a second refused, however long: that
// is all by which many connections get around it.
func TestPaceOfManyConnections(t *testing.T) {
	const conns, long, seconds = 50, time.Second / 4, 20
	p := newPace()
	begin := time.Unix(1_700_000_000, 0)
	next := make([]time.Time, conns) // when each is read again
	for i := range next {
		next[i] = begin
	}
	lines := 0
	for now := begin; now.Before(begin.Add(seconds * time.Second)); now = now.Add(time.Millisecond) {
		for i := range next {
			if next[i].After(now) {
				continue
			}
			lines++
			next[i] = now.Add(max(p.pay(1, now, long), 0))
		}
	}
	// The first of all, and those that the bound itself allows.
	if most := conns*(seconds+1) + int(seconds*time.Second/long); lines > most {
		t.Errorf("%d connections have %d long lines refused in %d s, want at most %d", conns, lines, seconds, most)
	}
	if least := conns * (seconds - 1); lines < least {
		t.Errorf("%d lines in %d s: a connection waits longer than the bound", lines, seconds)
	}
}
