package messages

import (
	"context"
	"encoding/json"
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
	Wanted
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
		select {
		case c.hints <- hint{owner, w}:
		default: // it tries again by itself
		}
	}
}

func (c *Courier) announce(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-c.hints:
			one, cancel := context.WithTimeout(ctx, c.o.Timing.Announce)
			err := c.o.Announce(one, h.owner, h.Sender, h.Protocol, h.Instance)
			cancel()
			if err != nil {
				c.o.Log.Debug("a peer was not told that its mail is taken now", "protocol", h.Protocol, "error", err)
				continue
			}
			if err := c.told(ctx, h); err != nil && ctx.Err() == nil {
				c.o.Log.Error("cannot forget who wants to send what", "error", err)
			}
		}
	}
}

// told forgets a want whose sender knows that its mail is taken now. One that has asked
// meanwhile, or will ask in vain, may believe the contrary: it is to be told again.
func (c *Courier) told(ctx context.Context, h hint) error {
	again, err := c.s.Served(ctx, h.owner, h.Wanted)
	if err != nil || !again && c.o.Takes(h.owner, h.Sender, h.Protocol, h.Instance) {
		return err
	}
	_, err = c.s.Want(ctx, h.owner, h.Sender, h.Protocol, h.Instance)
	c.Remind(h.owner, h.Sender)
	return err
}
