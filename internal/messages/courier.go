package messages

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// Timing of a Courier. The zero value of each is its default.
type Timing struct {
	RetryMin  time.Duration // before the second try; it doubles; 1 s
	RetryNear time.Duration // longest pause for a peer seen lately, and until the first try after a start; 10 s
	RetryFar  time.Duration // longest pause for others; 10 min
	Pending   time.Duration // pause where the receiver has to act first; 1 h
	Deliver   time.Duration // for one batch and its answer; 1 min
	Announce  time.Duration // for one hint to a peer; 10 s
	Remind    time.Duration // between looks at whose mail is taken and who has not heard it; 5 min
	Expire    time.Duration // longest pause between looks for what has expired; 1 min
	Prune     time.Duration // between looks for what may be forgotten; 1 h
	Look      time.Duration // between looks for lanes that are not known; 10 min
}

func (t *Timing) defaults() {
	for _, d := range []struct {
		at *time.Duration
		is time.Duration
	}{
		{&t.RetryMin, time.Second}, {&t.RetryNear, 10 * time.Second}, {&t.RetryFar, 10 * time.Minute}, {&t.Pending, time.Hour},
		{&t.Deliver, time.Minute}, {&t.Announce, 10 * time.Second}, {&t.Remind, 5 * time.Minute}, {&t.Expire, time.Minute}, {&t.Prune, time.Hour},
		{&t.Look, 10 * time.Minute},
	} {
		if *d.at == 0 {
			*d.at = d.is
		}
	}
}

// Notice is something that the owner of an identity of this machine is told.
type Notice struct {
	Kind         string // of api.Event
	Owner, Other identity.ID
	Protocol     string
	Instance     string
	ID           string // of the message
	Reason       string
}

// CourierOptions are all needed but Contact, Now, Timing and Log.
type CourierOptions struct {
	Store *Store
	// Deliver brings mail to its receiver, here or on another node.
	Deliver func(ctx context.Context, m *router.Mail) ([]error, error)
	// Takes tells whether mail of this kind would be taken now.
	Takes func(owner, from identity.ID, protocol, instance string) bool
	// Contact tells whether id is a contact of owner's; all are if it is nil.
	Contact func(owner, id identity.ID) bool
	// Announce tells a peer that its mail for protocol is taken now.
	Announce func(ctx context.Context, owner, to identity.ID, protocol, instance string) error
	// Near tells that the peer was connected within the hour.
	Near func(from, to identity.ID) bool
	// Tell must not wait.
	Tell   func(Notice)
	Now    func() time.Time
	Timing Timing
	Log    *slog.Logger
}

// Courier brings queued messages to their receivers and takes in what arrives.
// It is the router's Inbox and remote's Post. Safe for concurrent use.
type Courier struct {
	o       CourierOptions
	s       *Store
	lanes   lanes
	sure    atomic.Bool // what was in doubt at the start is not, or was for long enough
	waiters waiters
	records records
	mailmen mailmen
	hints   *hintList
	brief   chan struct{} // holds one if a message was queued that expires soon
	once    sync.Once     // closes loaded
	loaded  chan struct{} // closed when what waited at the start is known

	unread  atomic.Pointer[error] // see Trouble
	checked time.Time             // see lookOnce, which alone uses it
}

// NewCourier returns a Courier that delivers nothing until Run.
func NewCourier(o CourierOptions) *Courier {
	o.Timing.defaults()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Courier{o: o, s: o.Store, hints: newHintList(), brief: make(chan struct{}, 1), loaded: make(chan struct{})}
	c.lanes.init(o.Now, c.s.o.Owner)
	c.lanes.cut = c.s.WasCut()
	c.waiters.init()
	c.records.init()
	c.mailmen.init(c)
	c.s.OnQueued(c.queued)
	return c
}

// Run delivers until ctx ends and everything that it started has ended.
func (c *Courier) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer c.end(ctx)
	defer wg.Wait()
	wg.Go(func() { c.keepRecords(ctx) })
	wg.Go(func() { c.look(ctx) })
	wg.Go(func() {
		c.afterDoubts(ctx, nil, doubtLasts)
		c.sure.Store(true)
		c.expireAll(ctx)
	})
	wg.Go(func() { c.every(ctx, c.o.Timing.Prune, c.prune) })
	wg.Go(func() { c.every(ctx, c.o.Timing.Remind, c.remindAll) })
	for range announcers {
		wg.Go(func() { c.announce(ctx) })
	}
	wg.Go(func() { c.mailmen.run(ctx) })
	c.lanes.run(ctx, func(l *liveLane) { c.carry(ctx, l) })
}

func (c *Courier) every(ctx context.Context, d time.Duration, do func(context.Context)) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *Courier) expire(ctx context.Context) {
	if c.record(ctx) != nil {
		return // what is delivered would be found queued
	}
	ended, err := c.s.Expire(ctx)
	if err != nil && ctx.Err() == nil {
		c.o.Log.Error("cannot end messages whose life is over", "error", err)
	}
	for _, m := range ended {
		c.ended(m)
	}
}

// endOver ends the messages whose life is over now, for who waits for one of them, unless
// one may have been delivered.
func (c *Courier) endOver(ctx context.Context) {
	if c.sure.Load() {
		c.expire(context.WithoutCancel(ctx))
	}
}

func (c *Courier) prune(ctx context.Context) {
	if err := c.s.Prune(ctx); err != nil && ctx.Err() == nil {
		c.o.Log.Error("cannot forget old messages", "error", err)
	}
}

// Send queues m and has it tried at once. The answer comes after the commit.
// Errors are those of Store.Put.
func (c *Courier) Send(ctx context.Context, m Message) (Outgoing, error) {
	out, err := c.s.Put(ctx, m)
	if err == nil && out.State == Queued && out.Tries > 0 { // it was sent before
		c.lanes.asked(m.Lane(), c.o.Timing.RetryNear)
	}
	return out, err
}

// queued has messages carried that were queued just now.
func (c *Courier) queued(list []Message) {
	c.noteBrief(list)
	c.lanes.queued(list, c.o.Timing.RetryNear, func(m Message, now bool) {
		if now {
			c.waiters.note(Outgoing{Message: m, State: Queued, Size: int64(len(m.Data))})
		} else {
			c.waiters.forget(m.From, m.ID) // another of that id, of which the disk knows no more
		}
	})
}

// Cancel ends a queued message. One that is on its way may be delivered still;
// then that is what becomes of it in the end.
func (c *Courier) Cancel(ctx context.Context, from identity.ID, id string) (Outgoing, error) {
	c.doubtless(ctx, from, id)
	if c.waiters.delivered(from, id) {
		return Outgoing{}, errDelivered(id)
	}
	out, err := c.s.Cancel(ctx, from, id)
	if err == nil {
		c.lanes.changed(out.Lane())
		c.waiters.signal(out)
	}
	return out, err
}

// Retry queues a refused or expired message anew, or tries a queued one at once.
func (c *Courier) Retry(ctx context.Context, from identity.ID, id string) (Outgoing, error) {
	if c.waiters.delivered(from, id) {
		return Outgoing{}, errDelivered(id)
	}
	out, err := c.s.Retry(ctx, from, id)
	if err == nil {
		c.waiters.note(out)
		c.lanes.due(out.Lane())
	}
	return out, err
}

// waitSoon is how long a message that was sent lately is believed to be queued.
const waitSoon = 100 * time.Millisecond

// WaitFinal waits until a message's state is final, or ctx ends: then it gives
// the state as it is.
func (c *Courier) WaitFinal(ctx context.Context, from identity.ID, id string) (Outgoing, error) {
	news, forget := c.waiters.add(from, id)
	defer forget()
	// What was sent just now is usually answered sooner than the disk is read.
	switch m, ok := c.waiters.latest(from, id); {
	case ok && m.State != Queued:
		return m, nil
	case ok:
		soon := time.NewTimer(waitSoon)
		defer soon.Stop()
		select {
		case final := <-news:
			return final, nil
		case <-soon.C:
		case <-ctx.Done():
		}
	}
	out, err := c.s.Outgoing(context.WithoutCancel(ctx), from, id)
	if out = c.Latest(out); err != nil || out.State != Queued {
		return out, err
	}
	over := time.NewTimer(out.Expires.Sub(c.o.Now())) // who waits for it is not to wait for the next look
	defer over.Stop()
	for {
		select {
		case final := <-news:
			return final, nil
		case <-over.C:
			if !c.sure.Load() {
				over.Reset(waitSoon) // it may be delivered: its receiver is asked first
				continue
			}
			c.endOver(ctx)
		case <-ctx.Done():
			return c.s.Outgoing(context.WithoutCancel(ctx), from, id)
		}
	}
}

// Forget is Store.Forget, of which nothing is carried any more.
func (c *Courier) Forget(ctx context.Context, owner identity.ID) error {
	err := c.s.Forget(ctx, owner)
	c.lanes.forgetWhere(func(l *liveLane) bool { return l.From == owner })
	return err
}

// Resume has all mail of from tried now: it is served again.
func (c *Courier) Resume(from identity.ID) {
	c.lanes.dueWhere(func(l *liveLane) bool { return l.From == from })
}

// Allowed has all mail of from to the other tried now: whether from may send it is
// not what it was, which those messages are to tell.
func (c *Courier) Allowed(from, to identity.ID) {
	c.lanes.dueWhere(func(l *liveLane) bool { return l.From == from && l.To == to })
}

// Moved has all mail tried now that waits for no act of its receiver: this
// machine's network is another one.
func (c *Courier) Moved() {
	c.lanes.dueWhere(func(l *liveLane) bool { return l.code != api.CodePending })
}

// Reachable has mail for to tried now: one of its nodes connected.
func (c *Courier) Reachable(to identity.ID) { c.lanes.reachable(to) }

// Available implements remote.Post: from takes to's mail for protocol.
func (c *Courier) Available(from, to identity.ID, protocol, instance string) {
	c.lanes.available(Lane{From: to, To: from, Protocol: protocol, Instance: api.Instance(instance)})
}

// Latest is m as it is known, which may be more than is recorded so far.
func (c *Courier) Latest(m Outgoing) Outgoing {
	if m.State != Queued {
		return m
	}
	if o, ok := c.waiters.latest(m.From, m.ID); ok && o.State != Queued {
		m.State, m.Code, m.Reason, m.NextTry, m.Done = o.State, o.Code, o.Reason, time.Time{}, o.Done
	}
	return m
}

func (c *Courier) tellFinal(m Message, o Outcome) {
	kind := api.EventMessageDelivered
	if o.State != Delivered {
		kind = api.EventMessageRefused
	}
	c.o.Tell(Notice{Kind: kind, Owner: m.From, Other: m.To, Protocol: m.Protocol, Instance: m.Instance, ID: m.ID, Reason: o.Reason})
}

// ended tells of a message whose life is over.
func (c *Courier) ended(m Outgoing) {
	c.waiters.signal(m)
	c.o.Tell(Notice{Kind: api.EventMessageExpired, Owner: m.From, Other: m.To, Protocol: m.Protocol, Instance: m.Instance, ID: m.ID, Reason: m.Reason})
}
