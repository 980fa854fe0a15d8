package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fastn-stack/fastnd/service/api"
)

type sendCmd struct {
	Target   string  `arg:"" valid:"some" help:"A contact, an id52, a peer id or self." complete:"target"`
	Text     string  `arg:"" optional:"" help:"The text; - reads it from standard input."`
	Protocol string  `valid:"protocol" help:"Send to this protocol, with --data, instead of a text." placeholder:"NAME" complete:"protocol"`
	Instance string  `valid:"name" help:"Instance of the protocol, if it has several." placeholder:"NAME"`
	Data     string  `valid:"some" help:"Data for --protocol as JSON; - reads it from standard input." placeholder:"JSON"`
	ID       string  `name:"id" help:"The message's id, a UUID: the same id again is the same message." placeholder:"UUID"`
	Wait     string  `help:"Return when it is queued or delivered." enum:"queued,delivered" default:"queued"`
	Timeout  *period `help:"How long to wait with --wait=delivered; 30s unless given." placeholder:"30s"`
	Expire   period  `help:"How long to try, at most 30d." default:"7d"`
}

func (*sendCmd) Help() string {
	return `The message is on this machine's disk when the command returns, and is delivered as soon as the
receiver's machine is there. Prints its id. Of a text from standard input the last line break is left
out. With --wait=delivered the command returns when the message is on the receiver's disk; if the time
passes before, or it is interrupted, the exit code is 6 and the message stays queued.

Example:
  fastn send bob "hello"
  date | fastn send bob - --wait=delivered
  fastn send bob --protocol Orders --data '{"item":7}'`
}

func (c *sendCmd) run(a *app) error {
	if expire := time.Duration(c.Expire); expire < time.Second || expire > api.MaxMessageLife {
		return usage("--expire %v is out of range: 1s to 30d", c.Expire).WithHint("give it as 1h, 24h or 7d")
	}
	if c.ID != "" && !api.ValidUUID(c.ID) {
		return usage("--id %q is no UUID", api.Shorten(c.ID)).WithHint("leave --id out and one is made")
	}
	if c.Timeout != nil && c.Wait != "delivered" {
		return usage("--timeout needs --wait=delivered: otherwise nothing is waited for").
			WithHint("give both, or --expire for how long it is tried")
	}
	r := api.Request{Target: c.Target, Protocol: c.Protocol, Instance: c.Instance, From: a.identity(), MessageID: c.ID,
		ExpiresS: int64(time.Duration(c.Expire) / time.Second)}
	var err error
	if r.Data, err = c.data(a); err != nil {
		return err
	}
	if r.Protocol == "" {
		r.Protocol = api.ProtocolText
	}
	d, err := a.daemon()
	if err != nil {
		return err
	}
	sent, err := d.Send(a.ctx, r)
	if err != nil {
		if api.CodeOf(err) == api.CodeOutcomeUnknown {
			e := api.AsError(err)
			return e.WithHint(`give it again with --id %s: it stays one message`, api.ShellQuote(sent.MessageID))
		}
		return a.explain(err)
	}
	if c.Wait == "queued" {
		return c.accepted(a, sent)
	}
	return c.wait(a, d, sent)
}

// accepted is --wait=queued. With the id of an earlier message that has failed, or was
// taken back, nothing is sent.
func (c *sendCmd) accepted(a *app, sent api.SendResult) error {
	if err := a.showSent(sent.MessageID, sent.State); err != nil {
		return err
	}
	switch sent.State {
	case api.StateQueued, api.StateDelivered:
		return nil
	}
	m, err := fetch[api.OutboxMessage](a, api.VerbOutboxShow, api.OutboxArgs{MessageID: sent.MessageID})
	if err != nil {
		return err
	}
	return c.failed(m)
}

// data is what is sent: a text, or --data.
func (c *sendCmd) data(a *app) (json.RawMessage, error) {
	switch {
	case c.Protocol != "" && c.Text != "":
		return nil, usage("a text goes to the protocol Text; --protocol takes --data").
			WithHint(`leave --protocol out, or give "--data" as JSON`)
	case c.Protocol != "" && c.Data == "":
		return nil, usage("--data is missing: %s takes JSON", c.Protocol).WithHint(`"fastn send --help" shows how to give it`)
	case c.Protocol != "":
		if c.Data == "-" {
			if err := c.checkTarget(a); err != nil {
				return nil, err
			}
		}
		return a.readData(c.Data, true)
	case c.Data != "":
		return nil, usage("--data needs --protocol").WithHint(`"fastn send %s TEXT" sends a text`, api.ShellQuote(c.Target))
	case strings.TrimSpace(c.Text) == "":
		return nil, usage("there is no text").WithHint(`give it as an argument, or - for standard input`)
	}
	text := c.Text
	if text == "-" {
		if err := c.checkTarget(a); err != nil {
			return nil, err
		}
		b, size, err := a.readInput()
		if err != nil {
			return nil, err
		}
		if len(b) > api.MaxPayload {
			return nil, usage("the text has %s bytes, the limit is %d", size, api.MaxPayload).WithHint(longText)
		}
		text = strings.TrimSuffix(string(b), "\n")
	}
	if strings.TrimSpace(text) == "" {
		return nil, usage("there is no text on standard input").WithHint(`"fastn send --help" shows how to give it`)
	}
	if !utf8.ValidString(text) {
		return nil, usage("the text is not UTF-8").WithHint(`send bytes over a stream: "fastn stream --help"`)
	}
	data, err := api.Marshal(map[string]string{"text": text})
	if err != nil {
		return nil, err
	}
	if len(data) > api.MaxPayload {
		return nil, usage("the text has %d bytes as JSON, the limit is %d", len(data), api.MaxPayload).
			WithHint(longText)
	}
	return data, nil
}

const longText = `send it in parts, or over a stream: "fastn stream --help"`

// checkTarget refuses a target that is not known before a person has typed what it
// is to get: that would be lost.
func (c *sendCmd) checkTarget(a *app) error {
	if !isTerminal(a.std.In) {
		return nil
	}
	_, err := a.verb(api.VerbAccessWhy, api.GrantArgs{Who: c.Target, Protocol: api.ProtocolText})
	return err
}

// limit is how long --wait=delivered waits.
func (c *sendCmd) limit() time.Duration {
	if c.Timeout == nil {
		return 30 * time.Second
	}
	return time.Duration(*c.Timeout)
}

// wait is --wait=delivered.
func (c *sendCmd) wait(a *app, d daemon, sent api.SendResult) error {
	if !a.flags.JSON { // who is killed while waiting is to know it
		if err := a.showSent(sent.MessageID, sent.State); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(a.ctx, c.limit())
	defer cancel()
	end := a.noteLater("queued; waiting for %s, up to %v (interrupt: it stays queued)", c.Target, c.limit())
	m, err := d.WaitFinal(ctx, sent.MessageID)
	end()
	if m.State == "" { // no answer came at all
		m.State = sent.State
	}
	if a.flags.JSON {
		if err := a.showSent(sent.MessageID, m.State); err != nil {
			return err
		}
	}
	switch {
	case m.State == api.StateDelivered:
		return nil
	case m.State == api.StateQueued && a.ctx.Err() != nil:
		return notDelivered{api.Errorf(api.CodeCancelled, "interrupted; message %s stays queued", sent.MessageID)}
	case err != nil && api.CodeOf(err) != api.CodeTimeout:
		return a.explain(err)
	case m.State == api.StateQueued:
		return notDelivered{c.stillQueued(a, m)}
	}
	return c.failed(m)
}

func (c *sendCmd) stillQueued(a *app, m api.OutboxMessage) error {
	late := func(why string) *api.Error {
		return api.Errorf(api.CodeTimeout, "queued, not delivered within %v: %s", c.limit(), why)
	}
	switch away := a.away(); {
	case away != nil:
		return late(away.Message).
			WithHint("%s; the message is on its disk, and goes on once it runs", away.Hint)
	case m.Code == api.CodePending:
		return late(m.Reason).WithHint(`%s; "fastn outbox" shows how it goes`, whatHelps(m))
	case m.Expires.IsZero():
		return late("the daemon did not answer").WithHint(`"fastn outbox" shows how it goes`)
	}
	return late(cmp.Or(m.Reason, "no answer so far")).
		WithHint(`it is tried until %s; "fastn outbox" shows how it goes`, clock(m.Expires))
}

// away is why the daemon cannot be asked any more, or nil: the error of a wait that
// outlives its restarts does not tell.
func (a *app) away() *api.Error {
	p, err := a.locate()
	if err != nil || a.ctx.Err() != nil {
		return nil
	}
	gone := api.Errorf(api.CodeUnavailable, "the daemon is away")
	if err := a.explainAt(p, gone); err != error(gone) {
		e := api.AsError(err)
		return api.Errorf(e.Code, "your own daemon went away meanwhile: %s", e.Message).WithHint("%s", e.Hint)
	}
	if err := a.suspendedAt(p); err != nil {
		return api.AsError(err)
	}
	return nil
}

// failed is messageFailed, and knows how the message was sent.
func (c *sendCmd) failed(m api.OutboxMessage) error {
	if m.State != api.StateCancelled {
		return messageFailed(m)
	}
	e := api.Errorf(api.CodeConflict, "the message was cancelled")
	another := ""
	if c.ID != "" { // it would be the cancelled one for ever
		another = "leave --id out, or give another: "
	}
	if c.Protocol == "" {
		return e.WithHint(`%s"fastn send %s TEXT" sends it as a new message`, another, api.ShellQuote(c.Target))
	}
	if c.Instance != "" {
		return e.WithHint(`%s"fastn send %s --protocol %s --instance %s --data JSON" sends it as a new message`, another,
			api.ShellQuote(c.Target), api.ShellQuote(c.Protocol), api.ShellQuote(c.Instance))
	}
	return e.WithHint(`%s"fastn send %s --protocol %s --data JSON" sends it as a new message`, another,
		api.ShellQuote(c.Target), api.ShellQuote(c.Protocol))
}

// messageFailed is the error of a message that was refused, or has expired.
func messageFailed(m api.OutboxMessage) error {
	e := api.Errorf(m.Code, "the message is %s: %s", m.State, m.Reason)
	if m.Code != api.CodeRefused {
		e.Message = fmt.Sprintf("the message is %s: %s", m.State, reason(m))
	}
	switch {
	case m.State == api.StateExpired:
		e = api.Errorf(api.CodeExpired, "the message expired before it could be delivered")
	case m.Code == "":
		e.Code = api.CodeRefused
	}
	settled := "when that is settled, "
	switch {
	case m.State == api.StateExpired:
		settled = ""
	case m.Code == api.CodeRefused:
		settled = "the other side may have removed or blocked you: ask there; " + settled
	}
	return e.WithHint(`%s"fastn outbox retry %s" tries it again`, settled, api.ShellQuote(m.MessageID))
}

// notDelivered is exit code 6.
type notDelivered struct{ error }

func (n notDelivered) Unwrap() error { return n.error }

func isNotDelivered(err error) bool {
	_, ok := errors.AsType[notDelivered](err)
	return ok
}

// showSent prints what scripts need: the id.
func (a *app) showSent(id, state string) error {
	if a.flags.JSON {
		return a.printValue(api.SendResult{MessageID: id, State: state})
	}
	return a.write(bytes.NewBufferString(id + "\n"))
}
