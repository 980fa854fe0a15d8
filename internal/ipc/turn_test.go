package ipc

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Turns are given in order, one at a time; one that lasts long counts for nothing.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := &turns{most: 1}
		first := all.begin()
		given := make(chan *turn, 3)
		for range 3 {
			go func() { given <- all.begin() }()
			synctest.Wait()
		}
		if len(given) != 0 {
			t.Fatal("two have a turn at once")
		}
		waiting := slices.Clone(all.queue)
		next := func() *turn {
			t.Helper()
			synctest.Wait()
			if len(given) != 1 {
				t.Fatalf("%d have a turn", len(given))
			}
			w := <-given
			if w != waiting[0] {
				t.Fatal("it is not the turn of who came first")
			}
			waiting = waiting[1:]
			return w
		}
		first.end()
		first.end() // counts once
		second := next()
		time.Sleep(longTurn - time.Microsecond)
		synctest.Wait()
		if len(given) != 0 {
			t.Fatal("a turn was ended before its time")
		}
		time.Sleep(time.Microsecond) // who holds it waits for something else
		third := next()
		second.end() // late: the turn is another's now
		synctest.Wait()
		if len(given) != 0 {
			t.Fatal("the end of a long turn ended another's")
		}
		third.end()
		next().end()
		if len(all.holders) != 0 || len(all.queue) != 0 {
			t.Errorf("%d hold a turn, %d wait", len(all.holders), len(all.queue))
		}
		var none *turn
		none.end()
	})
}

// Each uid that is connected has turns of its own, and nothing else is kept.
func TestTurnTable(t *testing.T) {
	var table turnTable
	a, b := table.join(1), table.join(2)
	if a == b || table.join(1) != a {
		t.Error("turns are not those of a uid")
	}
	if a.most < 1 {
		t.Errorf("%d may have a turn at once", a.most)
	}
	for _, uid := range []uint32{1, 2, 1} {
		table.leave(uid)
	}
	if len(table.byID) != 0 {
		t.Errorf("%d uids are remembered", len(table.byID))
	}
}

// Lines that are refused are free up to a burst, then each waits for its part of
// the time; nobody waits longer than the bound, and what is saved up is bounded.
func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1_700_000_000, 0)
	free := 0
	for p.pay(now, refusalCost) <= 0 {
		free++
	}
	if free != int(refusalBurst/refusalCost) {
		t.Errorf("%d lines are refused at once", free)
	}
	if wait := p.pay(now, refusalCost); wait != 2*refusalCost {
		t.Errorf("the next but one waits %v", wait)
	}
	for range 10_000 {
		if wait := p.pay(now, 10*refusalCost); wait > longestPause {
			t.Fatalf("a pause of %v", wait)
		}
	}
	now = now.Add(time.Hour)
	if wait := p.pay(now, refusalBurst); wait > 0 {
		t.Errorf("after an hour it still waits %v", wait)
	}
	if wait := p.pay(now, refusalCost); wait != refusalCost {
		t.Errorf("more than a burst was saved up: %v", wait)
	}
}
