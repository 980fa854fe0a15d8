// Package crew runs short work on goroutines that it uses again. A new goroutine
// begins with a small stack and copies it each time that it grows: on the way of
// a request through a daemon that was a tenth of all its work.
package crew

import (
	"slices"
	"sync"
)

// mostIdle is how many goroutines wait for work: the memory of their stacks is
// what that costs.
const mostIdle = 256

// trimEvery is after how many pieces of work half of those goroutines end that have
// had none since the last time: what a crowd left behind is looked at by each garbage
// collection, which those who work wait for.
const trimEvery = 256

// Crew is ready for use when it is zero, and safe for concurrent use.
type Crew struct {
	mu     sync.Mutex
	idle   []chan func() // each one's is its own; the last to go idle is used first
	closed bool
	wg     sync.WaitGroup

	done   int // pieces of work since the last trim
	unused int // the first of idle that had nothing to do since
}

// Go runs f on another goroutine. It never waits. A panic of f is one of that
// goroutine.
func (c *Crew) Go(f func()) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		work := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.unused = min(c.unused, n-1)
		c.mu.Unlock()
		work <- f // has room: whoever is idle was given all it had
		return
	}
	c.wg.Add(1)
	c.mu.Unlock()
	go c.work(f)
}

func (c *Crew) work(f func()) {
	defer c.wg.Done()
	var more chan func()
	for f != nil {
		f()
		f = nil // what it holds is not kept while idle
		if more == nil {
			more = make(chan func(), 1)
		}
		if !c.rest(more) {
			return
		}
		f = <-more
	}
}

// rest makes the owner of more idle; false if it is not needed.
func (c *Crew) rest(more chan func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) == mostIdle {
		return false
	}
	c.idle = append(c.idle, more)
	if c.done++; c.done == trimEvery {
		c.trim()
	}
	return true
}

func (c *Crew) trim() {
	end := (c.unused + 1) / 2
	for _, more := range c.idle[:end] {
		close(more)
	}
	c.idle = slices.Delete(c.idle, 0, end)
	c.done, c.unused = 0, len(c.idle)
}

// Idle is how many goroutines wait for work.
func (c *Crew) Idle() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.idle)
}

// Close waits for all that runs, and ends the goroutines. Go may be called
// meanwhile by what still runs, but not afterwards.
func (c *Crew) Close() {
	c.mu.Lock()
	c.closed = true
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	for _, more := range idle {
		close(more)
	}
	c.wg.Wait()
}
