package p2p

import (
	"bufio"
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// rawStreams watches the raw streams of a connection. When more of them than
// the budget have data waiting and no reader, those that wait longest are reset:
// together they could fill the connection's window and stop all others.
type rawStreams struct {
	conn *connState

	mu      sync.Mutex
	streams map[*rawStream]struct{}
	byKey   map[streamKey]*rawStream // of two with one number, the later
	timer   *time.Timer              // runs while there are more streams than the budget
	ended   bool
}

func (r *rawStreams) init(c *connState) {
	r.conn = c
	r.streams = make(map[*rawStream]struct{})
	r.byKey = make(map[streamKey]*rawStream)
}

func (r *rawStreams) budget() int {
	h := r.conn.table.h
	if !h.trusted(r.conn.peer.Node) {
		return min(strangerStalled, h.o.StalledStreams)
	}
	return h.o.StalledStreams
}

func (r *rawStreams) add(c *rawStream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams[c] = struct{}{}
	r.byKey[c.key] = c
	if len(r.streams) > r.budget() && r.timer == nil && !r.ended {
		r.timer = time.AfterFunc(r.period(), r.check)
	}
}

func (r *rawStreams) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.streams)
}

func (r *rawStreams) remove(c *rawStream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, c)
	if r.byKey[c.key] == c {
		delete(r.byKey, c.key)
	}
}

func (r *rawStreams) period() time.Duration { return r.conn.table.h.o.Timing.Stalled }

func (r *rawStreams) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

// check is the timer's; it keeps itself going while it is needed.
func (r *rawStreams) check() {
	h := r.conn.table.h
	if !h.tasks.begin() {
		return
	}
	defer h.tasks.end()
	for _, c := range r.excess() {
		h.o.Log.Warn("reset a stream whose reader stopped", "peer", r.conn.peer.Node.String(), "budget", r.budget())
		c.Reset(api.CodeStalled)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || len(r.streams) <= r.budget() {
		r.timer = nil
		return
	}
	r.timer = time.AfterFunc(r.period(), r.check)
}

// excess gives the stalled streams beyond the budget, oldest first.
func (r *rawStreams) excess() []*rawStream {
	idle := r.idle(time.Now().Add(-r.period()).UnixNano())
	if len(idle) <= r.budget() {
		return nil
	}
	stalled := idle[:0]
	for _, c := range idle {
		if c.dataWaits() {
			stalled = append(stalled, c)
		}
	}
	return stalled[:max(0, len(stalled)-r.budget())]
}

// idle gives the streams that nobody has read since before, those that wait
// longest first.
func (r *rawStreams) idle(before int64) []*rawStream {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*rawStream
	for c := range r.streams {
		if c.lastRead.Load() < before && !c.readEnded.Load() {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *rawStream) int { return cmp.Compare(a.lastRead.Load(), b.lastRead.Load()) })
	return list
}

// peekTime is how long a look into a stream may last; data that is there is
// returned at once.
const peekTime = time.Millisecond

// dataWaits looks whether a stream without a reader holds data. libp2p does not
// tell, so a little is read ahead; a stream that is being read is left alone.
func (c *rawStream) dataWaits() bool {
	if !c.rmu.TryLock() {
		return false
	}
	defer c.rmu.Unlock()
	if c.head == nil {
		c.head = bufio.NewReaderSize(c.s, 16)
	}
	if c.head.Buffered() == 0 {
		_ = c.s.SetReadDeadline(time.Now().Add(peekTime))
		_, _ = c.head.Peek(1) // an error comes again when it is read
		_ = c.s.SetReadDeadline(time.Time{})
	}
	return c.head.Buffered() > 0
}
