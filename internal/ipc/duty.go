package ipc

import (
	"sync"
	"sync/atomic"
	"time"
)

// A request that is alone on its connection is done by the goroutine that read it: to
// wake another one costs more than most requests do. If it takes long another one reads
// on, so that the client is heard meanwhile.

const (
	// longRequest is after how long another goroutine reads on, twice that at most.
	longRequest = time.Millisecond
	// crowdFor is for how many requests a client that sent some at once is taken to
	// send more: each of those is done beside the others from its first moment.
	crowdFor = 16
	// lookouts is how often an overseer with nothing to see looks again, before it
	// rests: to begin each time would cost what is saved.
	lookouts = 100
)

// duty is what the goroutine that reads is at: 0 at reading, else twice the number of
// the request that it is at, and one more once another goroutine reads.
type duty = atomic.Uint64

// work does the request that was read last, if there is one, and returns false if
// another goroutine reads by now.
func (c *conn) work() (reads bool) {
	todo := c.todo
	c.todo = nil
	if c.in.buffered() > 0 {
		c.crowd = crowdFor
	}
	switch {
	case todo == nil:
		return true
	case c.crowd > 0 || c.accompanied():
		c.crowd = max(0, c.crowd-1)
		c.s.crew.Go(todo)
		return true
	}
	c.nth++ // also by those who read before
	at := 2 * c.nth
	c.at.Store(at)
	c.s.overseer.watch(c, at)
	todo()
	c.s.overseer.leave(c, at)
	return c.at.CompareAndSwap(at, 0)
}

// accompanied tells whether other requests are in flight.
func (c *conn) accompanied() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers > 1
}

// relieve has another goroutine read, if the one that does is at that request still.
func (c *conn) relieve(at uint64) {
	if c.at.CompareAndSwap(at, at+1) {
		c.s.crew.Go(c.read)
	}
}

// overseer relieves those who read and have been at a request for long. No timer is
// set for a request: that would wake a goroutine too. Zero is ready for use.
type overseer struct {
	mu      sync.Mutex
	first   *conn // of those at a request, the longest; linked by conn.watched
	last    *conn
	looking bool          // its goroutine runs
	quit    chan struct{} // ends the looking that runs
	wg      sync.WaitGroup
}

// watched is a connection's place in the overseer's list.
type watched struct {
	at             uint64 // 0: it is not in it
	since          time.Time
	earlier, later *conn
}

func (o *overseer) watch(c *conn, at uint64) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	c.watched = watched{at: at, since: now, earlier: o.last}
	if o.last == nil {
		o.first = c
	} else {
		o.last.watched.later = c
	}
	o.last = c
	if !o.looking {
		quit := make(chan struct{})
		o.looking, o.quit = true, quit
		o.wg.Go(func() { o.look(quit) })
	}
}

// leave ends a watch; the connection may be watched at another request by now.
func (o *overseer) leave(c *conn, at uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.watched.at == at {
		o.drop(c)
	}
}

// drop takes c out of the list. o.mu is held.
func (o *overseer) drop(c *conn) {
	w := c.watched
	if w.earlier == nil {
		o.first = w.later
	} else {
		w.earlier.watched.later = w.later
	}
	if w.later == nil {
		o.last = w.earlier
	} else {
		w.later.watched.earlier = w.earlier
	}
	c.watched = watched{}
}

// look looks now and then, until there was nothing to see for some time.
func (o *overseer) look(quit <-chan struct{}) {
	tick := time.NewTicker(longRequest)
	defer tick.Stop()
	for idle := 0; idle < lookouts || !o.rest(); idle++ {
		select {
		case <-tick.C:
		case <-quit:
			return
		}
		if o.glance() {
			idle = 0
		}
	}
}

// rest ends the looking, unless there is something to see.
func (o *overseer) rest() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.looking = o.first != nil
	return !o.looking
}

// glance relieves those who have been at it for long, and tells whether there is anyone.
func (o *overseer) glance() (any bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := o.first; c != nil; c = o.first {
		any = true
		if time.Since(c.watched.since) < longRequest {
			break
		}
		at := c.watched.at
		o.drop(c)
		c.relieve(at)
	}
	return any
}

// end ends the looking. Nothing is watched any more.
func (o *overseer) end() {
	o.mu.Lock()
	if o.looking {
		close(o.quit)
		o.looking = false // Close may be called again
	}
	o.mu.Unlock()
	o.wg.Wait()
}
