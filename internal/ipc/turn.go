package ipc

import (
	"runtime"
	"sync"
	"time"
)

// longTurn is how long a turn may last before it counts for nothing: who holds it
// then waits for something, and whoever wants one is not to wait for that.
const longTurn = time.Millisecond

// turns keep one user from filling the queues of the scheduler, where everybody
// else's requests would have to wait behind his: of each uid few requests at a time
// are looked at and done, and at least one processor looks for what others send.
// A request has its turn from its line on until its handler is done or waits for
// another program or node.
type turns struct {
	most int
	pace pace

	mu      sync.Mutex
	users   int // connections that refer to it; guarded by turnTable.mu
	holders []*turn
	queue   []*turn
	timer   *time.Timer // ends long turns while others want one
}

type turn struct {
	of    *turns
	since time.Time
	given chan struct{} // nil if it had not to wait
}

// begin waits for a turn.
func (t *turns) begin() *turn {
	w := &turn{of: t}
	t.mu.Lock()
	if len(t.holders) < t.most {
		w.since = time.Now()
		t.holders = append(t.holders, w)
		t.mu.Unlock()
		return w
	}
	w.given = make(chan struct{})
	t.queue = append(t.queue, w)
	if len(t.queue) == 1 {
		t.arm()
	}
	t.mu.Unlock()
	<-w.given
	return w
}

// end ends the turn; it may be called again, and for nil.
func (w *turn) end() {
	if w == nil {
		return
	}
	t := w.of
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, h := range t.holders {
		if h == w {
			t.holders = append(t.holders[:i], t.holders[i+1:]...)
			t.give()
			return
		}
	}
}

// give gives free turns to those who wait. t.mu is held.
func (t *turns) give() {
	for len(t.queue) > 0 && len(t.holders) < t.most {
		next := t.queue[0]
		t.queue = t.queue[1:]
		next.since = time.Now()
		t.holders = append(t.holders, next)
		close(next.given)
	}
	if len(t.queue) == 0 {
		t.queue = nil
	}
}

// arm makes sure that long turns are ended. t.mu is held.
func (t *turns) arm() {
	wait := longTurn
	if len(t.holders) > 0 {
		wait -= time.Since(t.holders[0].since)
	}
	if t.timer == nil {
		t.timer = time.AfterFunc(wait, t.endLong)
		return
	}
	t.timer.Reset(wait)
}

func (t *turns) endLong() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.holders) > 0 && len(t.queue) > 0 && time.Since(t.holders[0].since) >= longTurn {
		t.holders = t.holders[1:]
		t.give()
	}
	if len(t.queue) > 0 {
		t.arm()
	}
}

// turnTable has the turns of every uid that is connected.
type turnTable struct {
	mu   sync.Mutex
	byID map[uint32]*turns
}

func (b *turnTable) join(uid uint32) *turns {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.byID[uid]
	if t == nil {
		if b.byID == nil {
			b.byID = make(map[uint32]*turns)
		}
		t = &turns{most: max(1, runtime.GOMAXPROCS(0)-1)}
		b.byID[uid] = t
	}
	t.users++
	return t
}

func (b *turnTable) leave(uid uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.byID[uid]
	if t.users--; t.users == 0 {
		delete(b.byID, uid)
	}
}
