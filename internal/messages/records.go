package messages

import (
	"context"
	"sync"
	"time"
)

const (
	// What became of messages is recorded together, so that it is no work for who
	// sends the next one and waits: at the latest after recordAfter, or when there
	// are recordMost.
	recordAfter = 10 * time.Millisecond
	recordMost  = 64
)

// records are outcomes of messages that are told and not on the disk yet. Should
// they be lost, the messages are sent again after the next start, and their
// receiver, which has them, answers the same. So what was told stays true.
type records struct {
	mu     sync.Mutex
	list   []settled
	filled chan struct{} // holds one if there is something
	many   chan struct{} // holds one if it should not wait

	writing sync.Mutex // held while list is written
}

// settled is a batch of one lane, all of which was delivered.
type settled struct {
	lane     Lane
	letters  []Message
	outcomes []Outcome
}

func (r *records) init() { r.filled, r.many = make(chan struct{}, 1), make(chan struct{}, 1) }

// add has t recorded soon.
func (r *records) add(t settled) {
	r.mu.Lock()
	r.list = append(r.list, t)
	n := len(r.list)
	r.mu.Unlock()
	notify(r.filled)
	if n >= recordMost {
		notify(r.many)
	}
}

func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// keepRecords records until ctx ends.
func (c *Courier) keepRecords(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.records.filled:
		}
		timer.Reset(recordAfter)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.records.many:
		}
		c.record(ctx)
	}
}

// record records what there is, and returns when it is on the disk. It does not
// end with ctx.
func (c *Courier) record(ctx context.Context) {
	r := &c.records
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	list := r.list
	r.list = nil
	r.mu.Unlock()
	if len(list) == 0 {
		return
	}
	if err := c.s.SettleAll(context.WithoutCancel(ctx), list); err != nil {
		// They are sent again, and are known there.
		c.o.Log.Error("cannot record what became of messages", "error", err)
		for _, t := range list {
			c.lanes.stale(t.lane, jitter(c.o.Timing.RetryMin), err)
		}
		return
	}
	for _, t := range list {
		for i, o := range t.outcomes {
			c.tellFinal(t.letters[i], o)
		}
	}
}
