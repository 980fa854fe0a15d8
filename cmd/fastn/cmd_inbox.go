package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"strings"

	"github.com/fastn-stack/fastnd/service/api"
)

type inboxCmd struct {
	List   inboxListCmd   `cmd:"" default:"withargs" help:"List your messages (what fastn inbox does by itself)."`
	Show   inboxShowCmd   `cmd:"" help:"Print one message."`
	Read   inboxReadCmd   `cmd:"" help:"Print messages and mark them as read; all unread ones if none is named."`
	Remove inboxRemoveCmd `cmd:"" help:"Remove messages."`
}

func (*inboxCmd) Help() string {
	return `They stay until you remove them; read ones for a year, or what messages.keep_read in fastn.toml says.

Example:
  fastn inbox
  fastn inbox read
  fastn inbox --follow`
}

type inboxListCmd struct {
	Unread bool `help:"Only unread ones."`
	Follow bool `short:"f" help:"Go on with those that arrive, until interrupted."`
}

func (*inboxListCmd) Help() string {
	return `Oldest first. A message that "waits" is for a program that listens for its protocol. With --json the array's objects have "message_id", "from", "contact", "protocol",
"data", "received" and "read"; with --follow it is one object a line. --follow outlives a restart of
the daemon.

Example:
  fastn inbox list --unread
  fastn inbox --json | jq -r '.[].data.text'
  fastn inbox --follow`
}

func (c *inboxListCmd) run(a *app) error {
	if c.Follow {
		return c.follow(a)
	}
	all := []api.InboxMessage{}
	err := a.inboxPages(c.Unread, func(m api.InboxMessage) bool {
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
		a.note("%s", yesNo(c.Unread, "no new messages", "no messages"))
		return nil
	}
	return a.showInbox(all)
}

func (a *app) showInbox(list []api.InboxMessage) error {
	header := []string{"MESSAGE", "STATE", "FROM", "RECEIVED", "PROTOCOL", "TEXT"}
	rows := make([][]string, 0, len(list))
	for _, m := range list {
		rows = append(rows, []string{shortID(m.MessageID), inboxState(m), shortName(m.Contact, m.From), clock(m.Received), m.Protocol,
			quotedDash(summary(textOf(m.Protocol, m.Data)))})
	}
	fitText(header, rows, a.columns())
	var b bytes.Buffer
	a.table(&b, header, rows)
	return a.write(&b)
}

func (c *inboxListCmd) follow(a *app) error {
	d, err := a.daemon()
	if err != nil {
		return err
	}
	err = d.Follow(a.ctx, api.InboxListArgs{Unread: c.Unread}, func(m api.InboxMessage) error {
		if a.flags.JSON {
			return a.printValue(m)
		}
		return a.showMessage(m)
	})
	return endOfWatch(a, a.explain(err))
}

// inboxPages calls each for the messages of the inbox, until it is false.
func (a *app) inboxPages(unread bool, each func(api.InboxMessage) bool) error {
	return allPages(each, func(after int64) (list []api.InboxMessage, cursor int64, more bool, err error) {
		p, err := fetch[api.InboxPage](a, api.VerbInboxList, api.InboxListArgs{After: after, Limit: pageLimit, Unread: unread})
		return p.Messages, p.Cursor, p.More, err
	})
}

// inboxState tells of a message for a program that it waits for it.
func inboxState(m api.InboxMessage) string {
	if forProgram(m) {
		return "waits"
	}
	return yesNo(m.Read, "read", "new")
}

// forProgram tells a message that waits for a program to take it, and is not a
// person's to read.
func forProgram(m api.InboxMessage) bool {
	return (m.Protocol != api.ProtocolText || m.Instance != "") && !m.Read
}

func sender(m api.InboxMessage) string { return cmp.Or(m.Contact, m.From) }

// shortName is a name for tables: the contact's, or the beginning of an id52.
func shortName(contact, id52 string) string {
	if contact != "" || len(id52) <= 12 {
		return cmp.Or(contact, id52)
	}
	return id52[:12] + "…"
}

// textOf is a Text message's text; what is none is shown as its JSON.
func textOf(protocol string, data json.RawMessage) string {
	var t struct {
		Text *string `json:"text"`
	}
	if protocol == api.ProtocolText && json.Unmarshal(data, &t) == nil && t.Text != nil {
		return *t.Text
	}
	return string(data)
}

// summary is the first line of a text, if that is not too long.
func summary(text string) string {
	const most = 60
	first, rest, _ := strings.Cut(text, "\n")
	if r := []rune(first); len(r) > most {
		return string(r[:most]) + "…"
	}
	if rest != "" {
		return first + " …"
	}
	return first
}

// showMessage prints a message for a person: line breaks and tabs stay, whatever else could
// move a cursor is made visible.
func (a *app) showMessage(m api.InboxMessage) error {
	var b bytes.Buffer
	b.WriteString(a.style(a.outTTY, "1", visible(sender(m))+"  "+clock(m.Received)) + "  " + shortID(m.MessageID))
	if m.Protocol != api.ProtocolText {
		b.WriteString("  " + visible(m.Protocol))
	}
	b.WriteByte('\n')
	a.text(&b, textOf(m.Protocol, m.Data))
	return a.write(&b)
}

// text appends a message's text.
func (a *app) text(b *bytes.Buffer, text string) {
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		shown, room := visibleText(line), a.columns()-len(foldIndent)
		if room > 0 {
			shown = expandTabs(shown)
		}
		// Wrapped by the terminal it would go on where a sender's name stands.
		for _, part := range wrap(shown, room) {
			b.WriteString(foldIndent + part + "\n")
		}
	}
}

type inboxShowCmd struct {
	ID   string `arg:"" name:"message" help:"The message's id, or its beginning." complete:"inbox"`
	From string `help:"Its sender, if several used the same id." placeholder:"WHO" complete:"target"`
}

func (*inboxShowCmd) Help() string {
	return `Line breaks and tabs are kept; other control characters are made visible, as \x1b, and a backslash
that could be taken for the beginning of such is doubled.

Example:
  fastn inbox show 3f2a`
}

func (c *inboxShowCmd) run(a *app) error { return a.inboxVerb(api.VerbInboxShow, c.ID, c.From, true) }

type inboxReadCmd struct {
	IDs  []string `arg:"" optional:"" name:"message" help:"Ids, or their beginnings." complete:"inbox"`
	From string   `help:"The sender, if several used the same id." placeholder:"WHO" complete:"target"`
}

func (*inboxReadCmd) Help() string {
	return `Messages for programs are not read by this: each waits until its program takes it.

Example:
  fastn inbox read
  fastn inbox read 3f2a`
}

func (c *inboxReadCmd) run(a *app) error {
	if len(c.IDs) > 0 {
		return a.eachOf(c.IDs, func(id string) error { return a.inboxVerb(api.VerbInboxRead, id, c.From, true) })
	}
	var unread []api.InboxMessage
	waiting := 0
	err := a.inboxPages(true, func(m api.InboxMessage) bool {
		if forProgram(m) {
			waiting++
		} else if c.From == "" || c.From == m.Contact || c.From == m.From {
			unread = append(unread, m)
		}
		return true
	})
	if err != nil {
		return err
	}
	var refused error
	for _, m := range unread {
		err := a.inboxVerb(api.VerbInboxRead, m.MessageID, m.From, true)
		if _, ok := errors.AsType[*unmarked](err); ok {
			refused = err
			continue
		}
		if err != nil {
			return err
		}
	}
	if refused != nil {
		return refused
	}
	if len(unread) == 0 {
		a.note("no new messages")
	}
	if waiting > 0 {
		a.note(`%d for programs that listen: "fastn inbox" shows %s`, waiting, yesNo(waiting == 1, "it", "them"))
	}
	return nil
}

type inboxRemoveCmd struct {
	IDs  []string `arg:"" name:"message" help:"Ids, or their beginnings." complete:"inbox"`
	From string   `help:"The sender, if several used the same id." placeholder:"WHO" complete:"target"`
}

func (*inboxRemoveCmd) Help() string {
	return `Example:
  fastn inbox remove 3f2a 77c0`
}

func (c *inboxRemoveCmd) run(a *app) error {
	return a.eachOf(c.IDs, func(id string) error { return a.inboxVerb(api.VerbInboxRemove, id, c.From, false) })
}

// unmarked is why a message that was shown counts as unread still.
type unmarked struct{ error }

func (e *unmarked) Unwrap() error { return e.error }

func (a *app) inboxVerb(verb, word, from string, show bool) error {
	id, err := wholeID(a, "inbox", word, func(each func(string) bool) error {
		return a.inboxPages(false, func(m api.InboxMessage) bool { return each(m.MessageID) })
	})
	if err != nil {
		return err
	}
	do := verb
	if verb == api.VerbInboxRead { // marked once it was printed
		do = api.VerbInboxShow
	}
	raw, err := a.verb(do, api.InboxArgs{MessageID: id, From: from})
	if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.CodeConflict { // it is the verb's only one
		return answered{e.WithHint("%s", strings.Replace(e.Hint, `"fastn inbox show `, `"fastn `+strings.Replace(verb, ".", " ", 1)+" ", 1))}
	}
	if err != nil {
		return err
	}
	if !show {
		return a.done(raw, "removed message %s", shortID(id))
	}
	var m api.InboxMessage
	if err := decode(raw, &m); err != nil {
		return err
	}
	m.Read = m.Read || verb == api.VerbInboxRead && !forProgram(m)
	if a.flags.JSON {
		err = a.printValue(m)
	} else {
		err = a.showMessage(m)
	}
	if err != nil || verb != api.VerbInboxRead {
		return err
	}
	_, err = a.verb(verb, api.InboxArgs{MessageID: id, From: m.From})
	if api.CodeOf(err) == api.CodeStorage {
		return &unmarked{err}
	}
	return err
}
