package main

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/fastn-stack/fastnd/service/api"
)

type outboxShowCmd struct {
	ID string `arg:"" name:"message" help:"The message's id, or its beginning." complete:"outbox"`
}

func (*outboxShowCmd) Help() string {
	return `Tells all that is known of it, with the whole reason why it waits or failed, and its text as long as
that is kept: until it is delivered or cancelled.

Example:
  fastn outbox show 3f2a`
}

func (c *outboxShowCmd) run(a *app) error {
	m, printed, err := a.outboxMessage(api.VerbOutboxShow, c.ID)
	if printed || err != nil {
		return err
	}
	to := m.To
	if m.Contact != "" {
		to = m.Contact + ", " + to
	}
	fields := []string{"message", m.MessageID, "to", to, "protocol", m.Protocol}
	if m.Instance != "" {
		fields = append(fields, "instance", m.Instance)
	}
	fields = append(fields, "size", strconv.FormatInt(m.Size, 10)+" bytes as JSON", "sent", clock(m.Created), "expires", clock(m.Expires),
		"state", m.State)
	if m.Done != nil {
		fields = append(fields, m.State, clock(*m.Done))
	}
	if m.Tries > 0 {
		fields = append(fields, "tries", strconv.Itoa(m.Tries))
	}
	if next := a.nextTry(m); next != "" {
		fields = append(fields, "next try", next)
	}
	if why := reason(m); why != "" { // of a peer's addresses each has its own
		fields = append(fields, "reason", strings.ReplaceAll(why, "; ", ";\n"))
	}
	var b bytes.Buffer
	pairs(&b, fields...)
	if m.Data != nil {
		b.WriteByte('\n')
		a.text(&b, textOf(m.Protocol, m.Data))
	}
	if err := a.write(&b); err != nil {
		return err
	}
	a.note("%s", whatHelps(m))
	return nil
}

// whatHelps is what its sender can do about a message that waits, or "".
func whatHelps(m api.OutboxMessage) string {
	who := shortName(m.Contact, m.To)
	switch {
	case m.State != api.StateQueued:
		return ""
	case m.Code == api.CodePending && m.Contact == api.TargetSelf:
		return `"` + api.TakeCommand(m.Protocol, m.Instance) + `" takes it`
	case m.Code == api.CodePending:
		return askFor(who, m)
	case m.Code == api.CodePeerUnreachable && strings.Contains(m.Reason, "no address of"):
		return "it is found once it connects here: tell " + who + " where this machine is, by a ticket or an address"
	case m.Code == api.CodePeerUnreachable:
		return "a machine that has moved is found again once it connects here, as when " + who + " sends you something"
	}
	return ""
}

// askFor tells what the receiver of a message that is pending is to run.
func askFor(who string, m api.OutboxMessage) string {
	return "it is delivered once " + who + " runs both: " + api.GrantCommand("YOU", m.Protocol, m.Instance) +
		", with the name that you have there, and " + api.TakeCommand(m.Protocol, m.Instance)
}

// clipped is a message's reason in a table, on a terminal in short: one line, without the
// addresses that were tried.
func (a *app) clipped(m api.OutboxMessage) (text string, cut bool) {
	text = visible(reason(m))
	room := a.columns() - len(foldIndent)
	switch {
	case room <= 0:
		return text, false
	case m.Code == api.CodePeerUnreachable:
		return "not reachable", true
	case textWidth(text) <= room:
		return text, false
	}
	return clip(text, room), true
}
