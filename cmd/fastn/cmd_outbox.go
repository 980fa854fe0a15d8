package main

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

type outboxCmd struct {
	List   outboxListCmd   `cmd:"" default:"withargs" help:"List messages that are not delivered (what fastn outbox does by itself)."`
	Show   outboxShowCmd   `cmd:"" help:"Show one message, with the whole reason."`
	Cancel outboxCancelCmd `cmd:"" help:"Take a queued message back, or a refused or expired one off the list."`
	Retry  outboxRetryCmd  `cmd:"" help:"Try a message at once; a refused or expired one is queued again."`
}

func (*outboxCmd) Help() string {
	return `Each waits on this machine's disk until it is on the receiver's. Delivered and cancelled ones are
listed with --all.

Example:
  fastn outbox
  fastn outbox cancel 3f2a`
}

type outboxListCmd struct {
	All bool `help:"Show delivered and cancelled ones too."`
}

func (*outboxListCmd) Help() string {
	return `With --json the array's objects have "message_id", "to", "contact", "protocol", "state", "reason",
"next_try", "data" and more.

Example:
  fastn outbox list --all
  fastn outbox --json | jq -r '.[].reason'`
}

func (c *outboxListCmd) run(a *app) error {
	all := []api.OutboxMessage{}
	err := a.outboxPages(c.All, func(m api.OutboxMessage) bool {
		all = append(all, m)
		return true
	})
	if err != nil {
		return err
	}
	if a.flags.JSON {
		return a.printValue(all)
	}
	if len(all) == 0 {
		a.note("%s", yesNo(c.All, "no messages", "nothing waits to be delivered"))
		return nil
	}
	if err := a.showOutbox(all...); err != nil {
		return err
	}
	if slices.ContainsFunc(all, gaveUp) {
		a.note("%s", a.here(`once the reason is settled, "fastn outbox retry MESSAGE" queues one again; "fastn outbox cancel MESSAGE" takes it off this list`))
	}
	return nil
}

// gaveUp tells a message that is not tried any more.
func gaveUp(m api.OutboxMessage) bool {
	return m.State == api.StateRefused || m.State == api.StateExpired
}

// reason says why a message waits or failed, and for the refusal that says nothing
// more, what may be behind it.
func reason(m api.OutboxMessage) string {
	switch {
	case m.State != api.StateRefused || m.Code == "":
		return m.Reason
	case m.Code == api.CodeRefused:
		return m.Reason + ": " + shortName(m.Contact, m.To) + " may have removed or blocked you; ask there"
	}
	return shortName(m.Contact, m.To) + " answered: " + m.Reason // only the receiver's word refuses
}

// outboxPages calls each for the messages of the outbox, until it is false.
func (a *app) outboxPages(all bool, each func(api.OutboxMessage) bool) error {
	return allPages(each, func(after int64) (list []api.OutboxMessage, cursor int64, more bool, err error) {
		p, err := fetch[api.OutboxPage](a, api.VerbOutboxList, api.OutboxListArgs{After: after, Limit: pageLimit, All: all})
		return p.Messages, p.Cursor, p.More, err
	})
}

func (a *app) showOutbox(list ...api.OutboxMessage) error {
	header := []string{"MESSAGE", "TO", "PROTOCOL", "SENT", "TEXT", "STATE", "NEXT TRY", "REASON"}
	texts := a.columns() > 0 && !slices.ContainsFunc(list, func(m api.OutboxMessage) bool { return api.ServiceName(m.Protocol, m.Instance) != api.ProtocolText })
	rows := make([][]string, 0, len(list))
	cut := false
	for _, m := range list {
		why, short := a.clipped(m)
		cut = cut || short
		rows = append(rows, []string{shortID(m.MessageID), shortName(m.Contact, m.To), api.ServiceName(m.Protocol, m.Instance), a.moment(m.Created),
			beginning(m), m.State, a.nextTry(m), why})
	}
	if texts { // what all are needs no room on a terminal
		header = slices.Delete(header, 2, 3)
		for i := range rows {
			rows[i] = slices.Delete(rows[i], 2, 3)
		}
	}
	fitText(header, rows, a.columns())
	var b bytes.Buffer
	a.table(&b, header, rows)
	if err := a.write(&b); err != nil {
		return err
	}
	pending := slices.ContainsFunc(list, func(m api.OutboxMessage) bool { return m.State == api.StateQueued && m.Code == api.CodePending })
	switch {
	case cut && pending:
		a.note(`"fastn outbox show MESSAGE" shows the whole reason, and what to ask for where one is pending`)
	case pending:
		a.note(`"fastn outbox show MESSAGE" shows what to ask for where one is pending`)
	case cut:
		a.note(`"fastn outbox show MESSAGE" shows the whole reason`)
	}
	return nil
}

// beginning is of a message's text.
func beginning(m api.OutboxMessage) string {
	return quotedDash(summary(textOf(m.Protocol, m.Data)))
}

// quotedDash is for a text in a table, where "-" is that there is none.
func quotedDash(text string) string {
	if text == "-" {
		return `"-"`
	}
	return text
}

// moment is a time in a table: on a terminal one of today is told without its date.
func (a *app) moment(t time.Time) string {
	if day, _, _ := strings.Cut(clock(time.Now()), " "); a.columns() > 0 {
		return strings.TrimPrefix(clock(t), day+" ")
	}
	return clock(t)
}

// nextTry tells when a message is tried again; "" if it is not.
func (a *app) nextTry(m api.OutboxMessage) string {
	switch {
	case m.NextTry == nil:
		return ""
	case m.Expires.Before(time.Now()):
		return "never: its time is over"
	case m.NextTry.Before(time.Now()):
		return "now"
	}
	return a.moment(*m.NextTry)
}

// shortID is enough of a message's id for a person; commands take it for the whole.
func shortID(id string) string {
	short, _, _ := strings.Cut(id, "-")
	return short
}

// minShort is how much of an id names it, in characters.
const minShort = 4

// wholeID finds the message that the beginning of an id names, among those that
// pages goes through.
func wholeID(a *app, what, word string, pages func(each func(id string) bool) error) (string, error) {
	if api.ValidUUID(word) {
		return word, nil // either case: the daemon knows both
	}
	word = strings.ToLower(word)
	if len(word) < minShort {
		return "", usage("%q is too short for the id of a message", word).
			WithHint(`give at least %d characters of what "fastn %s" shows`, minShort, what)
	}
	var found []string
	err := pages(func(id string) bool {
		if strings.HasPrefix(strings.ToLower(id), word) && !slices.Contains(found, id) { // senders may use the same
			found = append(found, id)
		}
		return len(found) < 2
	})
	switch {
	case err != nil:
		return "", err
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return "", api.Errorf(api.CodeNotFound, "no message with an id that begins with %s in the %s", word, what).
			WithHint("%s", wholeIDsHint(what))
	}
	return "", usage("several messages have ids that begin with %s", word).
		WithHint("%s", wholeIDsHint(what))
}

func wholeIDsHint(what string) string {
	if what == "outbox" {
		return `"fastn outbox list --all --json" shows the whole ids`
	}
	return `"fastn inbox --json" shows the whole ids`
}

// eachOf does it for all words, whatever becomes of the others; the error is the last
// one, those before are told.
func (a *app) eachOf(words []string, do func(word string) error) error {
	var last error
	for _, word := range words {
		err := do(word)
		if err == nil {
			continue
		}
		if last != nil {
			a.printError(last)
		}
		last = err
		if a.ctx.Err() != nil || exitCode(err) == exitNoDaemon {
			break
		}
	}
	return last
}

type outboxCancelCmd struct {
	IDs []string `arg:"" name:"message" help:"Ids of messages, or their beginnings." complete:"outbox"`
}

func (*outboxCancelCmd) Help() string {
	return `A message that is on its way in this moment may be delivered still.

Example:
  fastn outbox cancel 3f2a`
}

func (c *outboxCancelCmd) run(a *app) error { return a.outboxVerb(api.VerbOutboxCancel, c.IDs) }

type outboxRetryCmd struct {
	IDs []string `arg:"" name:"message" help:"Ids of messages, or their beginnings." complete:"outbox"`
}

func (*outboxRetryCmd) Help() string {
	return `One whose time is over, or that was refused, is tried for 7 days from now, whatever --expire said when
it was sent, and at most until 30 days after that.

Example:
  fastn outbox retry 3f2a`
}

func (c *outboxRetryCmd) run(a *app) error { return a.outboxVerb(api.VerbOutboxRetry, c.IDs) }

func (a *app) outboxVerb(verb string, words []string) error {
	var list []api.OutboxMessage
	err := a.eachOf(words, func(word string) error {
		m, printed, err := a.outboxMessage(verb, word)
		if err == nil && !printed {
			list = append(list, m)
		}
		return err
	})
	if len(list) > 0 {
		if shown := a.showOutbox(list...); shown != nil {
			return shown
		}
	}
	return err
}

// outboxMessage runs a verb that answers with the message that word names; printed
// tells that its JSON was asked for and is out.
func (a *app) outboxMessage(verb, word string) (m api.OutboxMessage, printed bool, err error) {
	id, err := wholeID(a, "outbox", word, func(each func(string) bool) error {
		return a.outboxPages(true, func(m api.OutboxMessage) bool { return each(m.MessageID) })
	})
	if err != nil {
		return m, false, err
	}
	printed, err = a.ask(verb, api.OutboxArgs{MessageID: id}, &m)
	return m, printed, err
}
