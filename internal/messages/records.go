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
	// recordAgain is the longest pause between tries, where the disk refuses.
	recordAgain = time.Minute
)

// records are outcomes of messages that are told and not on the disk yet. Those that
// the disk refuses are kept until it takes them. Should they be lost, the messages
// are sent again after the next start, and their receiver, which has them, answers
// the same. So what was told stays true.
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
	pause, many := recordAfter, c.records.many
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.records.filled:
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-many:
		}
		err := c.record(ctx)
		if err == nil {
			pause, many = recordAfter, c.records.many
			continue
		}
		c.o.Log.Error("cannot record what became of messages; it is tried again", "error", err)
		pause, many = min(max(2*pause, c.o.Timing.RetryMin), recordAgain), nil
		notify(c.records.filled)
	}
}

// record records what there is, and returns when it is on the disk; with an error it
// is all kept for the next time. It does not end with ctx.
func (c *Courier) record(ctx context.Context) error {
	r := &c.records
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	list := r.list
	r.list = nil
	r.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	if err := c.s.SettleAll(context.WithoutCancel(ctx), list); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.list = append(list, r.list...)
		return err
	}
	for _, t := range list {
		for i, o := range t.outcomes {
			c.tellFinal(t.letters[i], o)
		}
	}
	return nil
}
