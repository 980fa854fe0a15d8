package client

import (
	"context"
	"encoding/json"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// Message is a durable message.
type Message struct {
	Target   string // contact name, id52, peer id or "self"
	Protocol string
	Instance string          // "default" if empty
	From     string          // Options.From if empty
	Data     json.RawMessage // valid JSON, at most api.MaxPayload bytes
	// ID is a UUID, unique among what the identity sends; one is made if empty.
	ID   string
	Life time.Duration // api.DefaultMessageLife if 0
}

// Send hands a message over to the daemon, which has it on its disk when Send
// returns. If the connection breaks Send connects anew and repeats, for as long
// as ctx lasts: the message's ID keeps it one message. Where the daemon was not
// there at all the error is unavailable at once. Where the error is
// unavailable or outcome_unknown, repeat with the ID that the result has.
func (c *Client) Send(ctx context.Context, m Message) (api.SendResult, error) {
	out := api.SendResult{MessageID: m.ID}
	if out.MessageID == "" {
		out.MessageID = api.NewUUID()
	}
	r := api.Request{Type: api.TypeSend, Target: m.Target, Protocol: m.Protocol, Instance: m.Instance, From: m.From,
		Data: m.Data, MessageID: out.MessageID, ExpiresS: int64((m.Life + time.Second - 1) / time.Second)}
	there := false
	err := c.steadily(ctx, &there, func() error {
		one := r
		data, err := c.do(ctx, &one)
		if err != nil {
			return err
		}
		return readAnswer(api.TypeSend, data, &out)
	})
	return out, err
}

// WaitFinal waits until a sent message is queued no more. It outlives restarts of
// the daemon. When ctx ends it returns what is known of the message last, and a
// timeout or cancelled error.
func (c *Client) WaitFinal(ctx context.Context, id string) (api.OutboxMessage, error) {
	var m api.OutboxMessage
	for there := false; ; {
		err := c.steadily(ctx, &there, func() error {
			err := c.Verb(ctx, api.VerbOutboxWait, api.OutboxArgs{MessageID: id}, &m)
			there = there || c.met.Load() // a daemon that stops answers who waits with unavailable
			return err
		})
		switch {
		case ctx.Err() != nil && (err != nil || m.State == api.StateQueued):
			if err != nil { // the time ended before the answer that told the state
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
				defer cancel()
				_ = c.Verb(last, api.VerbOutboxShow, api.OutboxArgs{MessageID: id}, &m)
			}
			if m.State == api.StateQueued || m.State == "" {
				return m, contextError(ctx)
			}
			return m, nil
		case err != nil || m.State != api.StateQueued:
			return m, err
		}
	}
}

// Follow calls each for every message in the inbox behind after, and for those
// that arrive, in order, until ctx ends or each fails. It outlives restarts of the
// daemon, and tells none twice. The error is ctx's or that of each.
func (c *Client) Follow(ctx context.Context, args api.InboxListArgs, each func(api.InboxMessage) error) error {
	args.Wait = true
	for there := false; ; {
		var page api.InboxPage
		err := c.steadily(ctx, &there, func() error {
			page = api.InboxPage{}
			err := c.Verb(ctx, api.VerbInboxList, args, &page)
			there = there || c.met.Load() // as in WaitFinal
			return err
		})
		if ctx.Err() != nil {
			return contextError(ctx)
		}
		if err != nil {
			return err
		}
		for _, m := range page.Messages {
			if err := each(m); err != nil {
				return err
			}
		}
		args.After = page.Cursor
	}
}

// steadily repeats do while the daemon is away, if it was there before: there
// tells, and is set here.
func (c *Client) steadily(ctx context.Context, there *bool, do func() error) error {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := do()
		*there = *there || api.CodeOf(err) != api.CodeUnavailable
		if !passing(err) || !*there || sleep(ctx, pause) != nil {
			return err
		}
	}
}
