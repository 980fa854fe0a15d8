package messages

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// carry delivers what lane l holds, some batches at a time.
func (c *Courier) carry(ctx context.Context, l *liveLane) {
	for range batchesInTurn {
		list, more, err := c.head(ctx, l)
		if err != nil {
			c.lanes.wait(l, c.pause(l, err), err)
			if ctx.Err() == nil && !errors.Is(err, errUnrecorded) && !errors.Is(err, errDoubted) { // told elsewhere, once
				c.o.Log.Error("cannot read the outbox", "error", err)
			}
			return
		}
		if len(list) > 0 && !c.batch(ctx, l, list, more) {
			return
		}
		if !more && c.lanes.done(l) {
			return
		}
	}
	c.lanes.yield(l)
}

// head gives the first messages of a lane; more tells that there are others. While the
// clock is doubted it ends before one that has expired by it: that is not sent, and
// none passes it.
func (c *Courier) head(ctx context.Context, l *liveLane) (list []Message, more bool, err error) {
	list, whole, doubt := c.lanes.begin(l)
	now, believed := c.s.clock()
	expired := func(m Message) bool { return !m.Expires.After(now) }
	if whole && (believed || !slices.ContainsFunc(list, expired)) {
		// The disk may have been read, and all this delivered, before it was told here.
		return slices.DeleteFunc(list, func(m Message) bool { return expired(m) || c.waiters.delivered(m.From, m.ID) }), false, nil
	}
	if err := c.record(ctx); err != nil { // else it would be found queued
		return nil, false, fmt.Errorf("%w: %w", errUnrecorded, err)
	}
	if doubt {
		now = time.Time{}
	}
	list, more, err = c.s.head(ctx, l.Lane, maxLetters, api.MaxPayload, now, !believed)
	last := int64(0)
	if len(list) > 0 {
		last = list[len(list)-1].Seq
	}
	c.lanes.found(l, last, more)
	if err == nil && more && len(list) == 0 {
		err = errDoubted
	}
	return list, more, err
}

// errDoubted has a lane wait until the clock is believed.
var errDoubted = api.Errorf(api.CodeUnavailable, "the clock has jumped, and a message has expired if it is right: that one and those behind it wait until it is set right, at most an hour")

// errUnrecorded has all wait that must be read from the disk.
var errUnrecorded = errors.New("what became of earlier messages is not recorded yet")

const (
	maxLetters    = 256 // wire.MaxLetters
	batchesInTurn = 16
)

// batch delivers list and records what became of it; false if the lane waits. more
// tells that the lane holds others.
func (c *Courier) batch(ctx context.Context, l *liveLane, list []Message, more bool) bool {
	mail := &router.Mail{From: l.From, To: l.To, Protocol: l.Protocol, Instance: l.Instance}
	for _, m := range list {
		mail.Letters = append(mail.Letters, router.Letter{ID: m.ID, Created: m.Created, Data: m.Data})
	}
	sendCtx, cancel := context.WithTimeout(ctx, c.o.Timing.Deliver)
	answers, err := c.o.Deliver(sendCtx, mail)
	cancel()
	if ctx.Err() != nil {
		return false // stopping: what was not recorded is sent again, and known there
	}
	var done []Message
	var outcomes []Outcome
	var why error
	for i, m := range list {
		one, last := err, finalOfAll(err)
		if err == nil {
			one, last = answers[i], final(answers[i])
		}
		if !last {
			if why == nil {
				why = one
			}
			continue // what is behind it may be there from an earlier time
		}
		o := Outcome{Seq: m.Seq, ID: m.ID, State: Delivered}
		if one != nil {
			e := api.AsError(one)
			o.State, o.Code, o.Reason = Refused, e.Code, e.Message
		}
		done, outcomes = append(done, m), append(outcomes, o)
		if o.State == Delivered {
			// Known before it is recorded: the receiver has it. Should the record be lost,
			// it is asked again and answers the same.
			c.finished(m, o)
		}
	}
	return c.settle(ctx, l, done, outcomes, why, more)
}

// settle records outcomes, one for each message of list, and why the rest of the
// lane waits.
func (c *Courier) settle(ctx context.Context, l *liveLane, list []Message, outcomes []Outcome, why error, more bool) bool {
	var wait *Wait
	if why != nil {
		e := api.AsError(why)
		wait = &Wait{Code: e.Code, Reason: e.Message, NextTry: c.o.Now().Add(c.pause(l, why))}
		if e.Peer != "" { // or it would pass for what this daemon says
			wait.Reason = "the receiver answered: " + e.Message
		}
	}
	if wait == nil && !more && allDelivered(outcomes) {
		c.records.add(settled{l.Lane, list, outcomes})
		c.lanes.went(l)
		return true
	}
	if err := c.s.Settle(ctx, l.Lane, outcomes, wait); err != nil {
		// What was not delivered is sent again, and is known there; the rest was told.
		if ctx.Err() == nil {
			c.o.Log.Error("cannot record what became of messages", "error", err)
		}
		told := settled{lane: l.Lane}
		for i, o := range outcomes {
			if o.State == Delivered {
				told.letters, told.outcomes = append(told.letters, list[i]), append(told.outcomes, o)
			}
		}
		if len(told.outcomes) > 0 {
			c.records.add(told)
		}
		c.lanes.wait(l, c.pause(l, err), err)
		return false
	}
	for i, o := range outcomes {
		if o.State != Delivered {
			if was, ok := c.waiters.latest(list[i].From, list[i].ID); ok && was.State == Cancelled {
				continue // on its way, and stays so
			}
			c.finished(list[i], o)
		}
		c.tellFinal(list[i], o)
	}
	if wait != nil {
		c.lanes.wait(l, wait.NextTry.Sub(c.o.Now()), why)
		return false
	}
	c.lanes.went(l)
	return true
}

func allDelivered(outcomes []Outcome) bool {
	return !slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.State != Delivered })
}

// pause is how long lane l waits after err.
func (c *Courier) pause(l *liveLane, err error) time.Duration {
	if api.CodeOf(err) == api.CodePending {
		return jitter(c.o.Timing.Pending)
	}
	most := c.o.Timing.RetryFar
	if c.o.Near(l.From, l.To) {
		most = c.o.Timing.RetryNear
	}
	d := c.o.Timing.RetryMin << min(l.tries, 20)
	return jitter(min(d, most))
}

// finished wakes those who wait for m.
func (c *Courier) finished(m Message, o Outcome) {
	c.waiters.signal(Outgoing{Message: m, State: o.State, Code: o.Code, Reason: o.Reason, Done: c.o.Now(), Size: int64(len(m.Data))})
}
