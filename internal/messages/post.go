package messages

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// TakesBuiltin tells whether every identity takes mail for protocol.
func (c *Courier) TakesBuiltin(protocol, instance string) bool {
	return protocol == api.ProtocolText && instance == api.DefaultInstance
}

// Deliver implements router.Inbox: it takes m into the inbox of its receiver.
func (c *Courier) Deliver(ctx context.Context, m *router.Mail) ([]error, error) {
	out := make([]error, len(m.Letters))
	list := make([]Message, 0, len(m.Letters))
	at := make([]int, 0, len(m.Letters)) // of list in out
	for i, l := range m.Letters {
		if c.TakesBuiltin(m.Protocol, m.Instance) {
			if out[i] = checkText(l.Data); out[i] != nil {
				continue
			}
		}
		list = append(list, Message{ID: l.ID, From: m.From, To: m.To, Protocol: m.Protocol, Instance: m.Instance,
			Data: l.Data, Created: l.Created})
		at = append(at, i)
	}
	if len(list) == 0 {
		return out, nil
	}
	fresh, began := 0, c.o.Now()
	for i, t := range c.s.Take(ctx, list) {
		out[at[i]] = t.Err
		if t.Fresh && t.Err == nil {
			fresh++
		}
	}
	switch {
	case fresh > 0:
		c.arrived(m, fresh)
	case !m.Node.IsZero():
		c.dwell(ctx, c.o.Now().Sub(began))
	}
	return out, nil
}

const (
	dwellTimes = 4
	dwellMin   = 5 * time.Millisecond
	dwellMost  = 50 * time.Millisecond
)

// dwell has another node wait for the answer to mail that brought nothing, which
// took us so long. Who sends honestly does so once, and waits then; others make
// us look up what they repeat as fast as they are answered.
func (c *Courier) dwell(ctx context.Context, took time.Duration) {
	timer := time.NewTimer(min(max(dwellTimes*took, dwellMin), dwellMost))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// arrived wakes who waits for mail.
func (c *Courier) arrived(m *router.Mail, fresh int) {
	c.waiters.arrived(m.To)
	if c.mailmen.poke(service{m.To, m.Protocol, m.Instance}) {
		return // a program's own, which is told of each
	}
	n := Notice{Kind: api.EventMessageReceived, Owner: m.To, Other: m.From, Protocol: m.Protocol, Instance: m.Instance}
	if fresh == 1 && len(m.Letters) == 1 {
		n.ID = api.CanonicalUUID(m.Letters[0].ID)
	}
	c.o.Tell(n)
}

// checkText refuses what is no Text: an object with the string "text" alone.
func checkText(data json.RawMessage) error {
	var t struct {
		Text *string `json:"text"`
	}
	if api.DecodeArgs(data, &t) != nil || t.Text == nil {
		return api.Errorf(api.CodeBadRequest, `a Text message has {"text": "…"} and nothing else`).
			WithHint(`"fastn send TARGET TEXT" sends a text`)
	}
	return nil
}

// CheckData refuses data that no receiver of protocol would take.
func (c *Courier) CheckData(protocol, instance string, data json.RawMessage) error {
	if c.TakesBuiltin(protocol, instance) {
		return checkText(data)
	}
	return nil
}

// Arrivals gives a channel that is closed at the next message to owner.
func (c *Courier) Arrivals(owner identity.ID) <-chan struct{} { return c.waiters.arrivals(owner) }

// Wanted implements router.Inbox: a contact has mail that is not taken so far.
// Its owner is told once.
func (c *Courier) Wanted(ctx context.Context, m *router.Mail) (bool, error) {
	if m.From != m.To && c.o.Contact != nil && !c.o.Contact(m.To, m.From) {
		return false, nil
	}
	// What it waits for may have come to be before the want was on the disk.
	defer c.Remind(m.To, m.From)
	first, err := c.s.Want(ctx, m.To, m.From, m.Protocol, m.Instance)
	if err != nil && ctx.Err() == nil && api.CodeOf(err) != api.CodeStorage { // of the disk it is told
		c.o.Log.Error("cannot note who wants to send what", "error", err)
	}
	if first {
		c.o.Tell(Notice{Kind: api.EventProtocolWanted, Owner: m.To, Other: m.From, Protocol: m.Protocol, Instance: m.Instance})
	}
	return true, err
}

const (
	announcers = 4
	hintQueue  = 1024
)

// hint is to be told to a peer whose mail waits: owner takes what it wanted.
type hint struct {
	owner identity.ID
	wantKey
}

// hintList is the hints that are to be told, each once.
type hintList struct {
	mu    sync.Mutex
	there map[hint]bool
	next  chan hint
}

func newHintList() *hintList {
	return &hintList{there: make(map[hint]bool), next: make(chan hint, hintQueue)}
}

// add does nothing if the list is full: all that waits is looked at again now and then.
func (l *hintList) add(h hint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.there[h] {
		return
	}
	select {
	case l.next <- h:
		l.there[h] = true
	default:
	}
}

// began is to be called with each that is taken, before it is told: it may be needed again.
func (l *hintList) began(h hint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.there, h)
}

// Recheck tells those whose mail for owner waited, and is taken now, to send it.
// It is called when a protocol is served, or granted.
func (c *Courier) Recheck(ctx context.Context, owner identity.ID) {
	c.recheck(ctx, owner, func(identity.ID) bool { return true })
}

// Remind is Recheck for one sender. It is called when the sender connects, who
// may not have heard it.
func (c *Courier) Remind(owner, to identity.ID) {
	c.recheck(context.Background(), owner, func(sender identity.ID) bool { return sender == to })
}

// recheck leaves the wants as they are: they are forgotten once their senders
// were told.
func (c *Courier) recheck(ctx context.Context, owner identity.ID, who func(sender identity.ID) bool) {
	wanted, err := c.s.Wanted(ctx, owner)
	if err != nil {
		c.o.Log.Error("cannot read who wants to send what", "error", err)
		return
	}
	for _, w := range wanted {
		if !who(w.Sender) || !c.o.Takes(owner, w.Sender, w.Protocol, w.Instance) {
			continue
		}
		c.lanes.available(Lane{From: w.Sender, To: owner, Protocol: w.Protocol, Instance: w.Instance}) // of this node
		c.hints.add(hint{owner, wantKey{w.Sender, w.Protocol, w.Instance}})
	}
}

func (c *Courier) announce(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-c.hints.next:
			c.hints.began(h)
			c.announceOne(ctx, h)
		}
	}
}

func (c *Courier) announceOne(ctx context.Context, h hint) {
	w, ok := c.s.wantedNow(h.owner, h.wantKey)
	if !ok || !c.o.Takes(h.owner, h.sender, h.protocol, h.instance) {
		return
	}
	c.lanes.available(Lane{From: h.sender, To: h.owner, Protocol: h.protocol, Instance: h.instance}) // it may have asked since
	one, cancel := context.WithTimeout(ctx, c.o.Timing.Announce)
	err := c.o.Announce(one, h.owner, h.sender, h.protocol, h.instance)
	cancel()
	if err != nil {
		c.o.Log.Debug("a peer was not told that its mail is taken now", "protocol", h.protocol, "error", err)
		return
	}
	if !c.o.Takes(h.owner, h.sender, h.protocol, h.instance) {
		return // it will try in vain: it is told again when this has changed
	}
	again, err := c.s.Served(ctx, h.owner, w)
	if err != nil && ctx.Err() == nil {
		c.o.Log.Error("cannot forget who wants to send what", "error", err)
	}
	if again { // and may believe that it is not taken
		c.Remind(h.owner, h.sender)
	}
}

// remindAll is Recheck for the senders that are near: one may not have answered in time.
func (c *Courier) remindAll(ctx context.Context) {
	for _, owner := range c.s.wantedOwners() {
		c.recheck(ctx, owner, func(sender identity.ID) bool { return c.o.Near(owner, sender) })
	}
}
