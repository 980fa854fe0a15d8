package main

import (
	"bytes"
	"io"
	"strconv"
	"strings"

	"github.com/fastn-stack/fastnd/service/api"
)

// ticketPrefix starts every ticket.
const ticketPrefix = "fastn1"

// maxTicket bounds what contact add reads from standard input, in bytes.
const maxTicket = 64 << 10

type contactCmd struct {
	Add     contactAddCmd     `cmd:"" help:"Add a contact by a ticket or an id."`
	List    contactListCmd    `cmd:"" default:"1" help:"List your contacts (what fastn contact does by itself)."`
	Rename  contactRenameCmd  `cmd:"" help:"Give a contact another name."`
	Remove  contactRemoveCmd  `cmd:"" help:"Remove a contact, with its grants and open streams."`
	Block   contactBlockCmd   `cmd:"" help:"Refuse everything from a contact or id."`
	Unblock contactUnblockCmd `cmd:"" help:"Lift a block."`
}

func (*contactCmd) Help() string {
	return `A contact is a name of your own for an identity of somebody else.

Example:
  fastn contact add bob fastn1…
  fastn contact`
}

type contactAddCmd struct {
	Name    string `arg:"" valid:"name" help:"The name you give."`
	Ticket  string `arg:"" help:"A ticket, an id52, a peer id; - reads it from standard input." name:"ticket|id|-"`
	Address string `help:"Where an id lives: a multiaddr that ends in /p2p/NODEID." placeholder:"MULTIADDR"`
}

func (*contactAddCmd) Help() string {
	return `With a ticket the inviter is asked, and both sides become contacts; if it is not reachable, nothing
is kept. With an id nobody is asked yet. A ticket is a secret while it is unused: - keeps it out of the
list of processes.

Example:
  fastn contact add bob - < ticket
  fastn contact add bob 0a1b… --address /ip4/192.0.2.7/tcp/4100/p2p/12D3…`
}

func (c *contactAddCmd) run(a *app) error {
	word := c.Ticket
	if word == "-" {
		text, err := io.ReadAll(io.LimitReader(a.std.In, maxTicket))
		if err != nil {
			return failed("cannot read the ticket from standard input: %v", pathCause(err))
		}
		word = string(text)
	}
	word = strings.TrimSpace(word)
	if word == "" {
		return usage("there is no ticket and no id").
			WithHint("give what fastn invite printed for the other side")
	}
	a.asked = c.Name
	args := api.ContactAddArgs{Name: c.Name, Address: c.Address}
	if lower := strings.ToLower(word); strings.HasPrefix(lower, ticketPrefix) {
		// As it was pasted or read aloud: broken into lines, in capitals.
		word = strings.Join(strings.Fields(lower), "")
		if c.Address != "" {
			return usage("--address does not go with a ticket: a ticket holds its addresses").
				WithHint("leave --address out")
		}
		args.Ticket = word
	} else {
		args.ID = word
	}
	return a.contactVerb(api.VerbContactAdd, args)
}

type contactListCmd struct{}

func (*contactListCmd) Help() string {
	return `Example:
  fastn contact list
  fastn contact list --json | jq -r '.[].name'`
}

func (*contactListCmd) run(a *app) error {
	var list []api.Contact
	if printed, err := a.ask(api.VerbContactList, struct{}{}, &list); printed || err != nil {
		return err
	}
	return a.showContacts(list...)
}

func (a *app) showContacts(list ...api.Contact) error {
	rows := make([][]string, 0, len(list))
	for _, c := range list {
		rows = append(rows, []string{c.Name, c.ID52, yesNo(c.Blocked, "blocked", "contact"),
			clock(c.Added), shortAddresses(c.Addresses)})
	}
	var b bytes.Buffer
	a.table(&b, []string{"CONTACT", "ID52", "STATE", "ADDED", "ADDRESSES"}, rows)
	return a.write(&b)
}

// shortAddresses leaves out the node, which is the same in all and long.
func shortAddresses(list []string) string {
	short := make([]string, 0, len(list))
	for _, addr := range list {
		host, _, _ := strings.Cut(addr, "/p2p/")
		short = append(short, host)
	}
	return strings.Join(once(short), ", ")
}

// contactVerb runs a verb that answers with one contact and shows it.
func (a *app) contactVerb(verb string, args any) error {
	var c api.Contact
	if printed, err := a.ask(verb, args, &c); printed || err != nil {
		return err
	}
	return a.showContacts(c)
}

type contactRenameCmd struct {
	Name string `arg:"" help:"The contact." complete:"contact"`
	To   string `arg:"" valid:"name" what:"new name" help:"Its new name."`
}

func (*contactRenameCmd) Help() string {
	return `Example:
  fastn contact rename bob robert`
}

func (c *contactRenameCmd) run(a *app) error {
	return a.contactVerb(api.VerbContactRename, api.RenameArgs{Name: c.Name, To: c.To})
}

type contactRemoveCmd struct {
	Name string `arg:"" help:"The contact." complete:"contact"`
}

func (*contactRemoveCmd) Help() string {
	return `Example:
  fastn contact remove bob`
}

func (c *contactRemoveCmd) run(a *app) error {
	waiting := 0
	if !a.flags.JSON && !a.flags.Quiet {
		_ = a.outboxPages(false, func(m api.OutboxMessage) bool { // if not told, it is not said
			if m.Contact == c.Name && m.State == api.StateQueued {
				waiting++
			}
			return true
		})
	}
	raw, err := a.verb(api.VerbContactRemove, api.NameArgs{Name: c.Name})
	if err != nil {
		return err
	}
	if err := a.done(raw, "removed contact %s", c.Name); err != nil || waiting == 0 {
		return err
	}
	what, are, it := "one message", "waits and is", "it"
	if waiting > 1 {
		what, are, it = strconv.Itoa(waiting)+" messages", "wait and are", "one"
	}
	a.note(`%s to %s %s still tried: "fastn outbox" shows %s, "fastn outbox cancel MESSAGE" takes %s back`,
		what, c.Name, are, yesNo(waiting == 1, "it", "them"), it)
	return nil
}

type contactBlockCmd struct {
	Name string `arg:"" help:"The contact, or an id52 or peer id." complete:"contact"`
}

func (*contactBlockCmd) Help() string {
	return `What is open between you ends. Blocks win over every grant.

Example:
  fastn contact block bob`
}

func (c *contactBlockCmd) run(a *app) error {
	return a.contactVerb(api.VerbContactBlock, api.NameArgs{Name: c.Name})
}

type contactUnblockCmd struct {
	Name string `arg:"" help:"The contact, or an id52 or peer id." complete:"contact"`
}

func (*contactUnblockCmd) Help() string {
	return `Example:
  fastn contact unblock bob`
}

func (c *contactUnblockCmd) run(a *app) error {
	return a.contactVerb(api.VerbContactUnblock, api.NameArgs{Name: c.Name})
}
