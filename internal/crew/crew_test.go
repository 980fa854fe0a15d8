package crew

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

func TestAllRuns(t *testing.T) {
	testutil.LeakCheck(t)
	var c Crew
	var ran atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 500 {
				c.Go(func() {
					if ran.Add(1)%7 == 0 {
						c.Go(func() { ran.Add(1) })
					}
				})
			}
		})
	}
	callers.Wait()
	c.Close()
	if n := ran.Load(); n < 4000 {
		t.Errorf("%d ran", n)
	}
}

// Work that waits for other work must not keep it from running.
func TestNobodyWaitsForAnother(t *testing.T) {
	testutil.LeakCheck(t)
	var c Crew
	const many = 4 * mostIdle
	var all sync.WaitGroup
	all.Add(many)
	for range many {
		c.Go(func() {
			all.Done()
			all.Wait()
		})
	}
	all.Wait()
	c.Close()
	if len(c.idle) > 0 {
		t.Errorf("%d are idle after Close", len(c.idle))
	}
}

func TestUsedAgain(t *testing.T) {
	testutil.LeakCheck(t)
	var c Crew
	defer c.Close()
	idle := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.idle)
	}
	before := runtime.NumGoroutine()
	for range 100 {
		c.Go(func() {})
		for idle() == 0 {
			runtime.Gosched()
		}
	}
	if n := runtime.NumGoroutine() - before; n > 1 {
		t.Errorf("%d goroutines for work that came one after the other, want 1", n)
	}
}

// A thousand at once leave no more behind than are kept.
func TestFewStay(t *testing.T) {
	testutil.LeakCheck(t)
	var c Crew
	hold := make(chan struct{})
	var left sync.WaitGroup
	for range 1000 {
		left.Add(1)
		c.Go(func() {
			defer left.Done()
			<-hold
		})
	}
	close(hold)
	left.Wait()
	if n := c.Idle(); n > mostIdle {
		t.Errorf("%d stay", n)
	}
	c.Close()
	if n := c.Idle(); n != 0 {
		t.Errorf("%d are idle after the end", n)
	}
}

func BenchmarkGo(b *testing.B) {
	var c Crew
	defer c.Close()
	done := make(chan struct{})
	for b.Loop() {
		c.Go(func() { done <- struct{}{} })
		<-done
	}
}

// What a crowd leaves behind ends when fewer work.
func TestCrowdLeaves(t *testing.T) {
	testutil.LeakCheck(t)
	var c Crew
	defer c.Close()
	hold := make(chan struct{})
	var crowd sync.WaitGroup
	for range mostIdle {
		crowd.Add(1)
		c.Go(func() { crowd.Done(); <-hold })
	}
	crowd.Wait()
	close(hold)
	for range 12 * trimEvery {
		done := make(chan struct{})
		c.Go(func() { close(done) })
		<-done
	}
	if n := c.Idle(); n > mostIdle/8 {
		t.Errorf("%d are idle", n)
	}
}
