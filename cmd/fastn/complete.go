package main

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/fastn-stack/fastnd/service/api"
)

// completeTimeout bounds what a shell waits for the daemon after Tab.
const completeTimeout = 500 * time.Millisecond

// candidate is one word that could stand at the cursor.
type candidate struct {
	word, help string
}

// complete prints the candidates for the last of the words behind "--", one a
// line, with a tab and a text unless --no-help is given. A line ":file" or
// ":dir" leaves it to the shell. It fails silently: a shell is waiting.
func (a *app) complete(args []string) error {
	help := true
	for len(args) > 0 && args[0] != "--" {
		help = help && args[0] != "--no-help"
		args = args[1:]
	}
	if len(args) < 2 {
		return nil
	}
	a.flags.Quiet = true
	parser, err := newParser(&a.flags, a.std, "")
	if err != nil {
		return err
	}
	c := &completer{app: a, node: parser.Model.Node}
	words, last := args[1:len(args)-1], args[len(args)-1]
	for _, w := range words {
		c.step(w)
	}
	var b bytes.Buffer
	for _, cand := range c.candidates(last) {
		b.WriteString(visible(cand.word))
		if help && cand.help != "" {
			b.WriteString("\t" + visible(cand.help))
		}
		b.WriteByte('\n')
	}
	return a.write(&b)
}

// completer walks the words before the cursor through the grammar.
type completer struct {
	app   *app
	node  *kong.Node
	flag  *kong.Flag // waits for its value
	given int        // positional arguments so far
	ended bool       // by "--"
}

func (c *completer) step(word string) {
	switch {
	case c.flag != nil:
		c.set(c.flag, word)
		c.flag = nil
	case c.ended:
		c.given++
	case word == "--":
		c.ended = true
	case strings.HasPrefix(word, "-") && word != "-":
		name, value, has := strings.Cut(word, "=")
		f := c.find(name)
		if f == nil {
			return
		}
		if has {
			c.set(f, value)
		} else if !f.IsBool() {
			c.flag = f
		}
	default:
		for _, child := range c.node.Children {
			if child.Name == word {
				c.node = child
				return
			}
		}
		c.given++
	}
}

// set takes the flags that say which daemon is to be asked.
func (c *completer) set(f *kong.Flag, value string) {
	switch f.Name {
	case "home":
		c.app.flags.Home = value
	case "socket":
		c.app.flags.Socket = value
	case "as":
		c.app.flags.As = value
	}
}

func (c *completer) find(name string) *kong.Flag {
	for _, group := range c.node.AllFlags(true) {
		for _, f := range group {
			if name == "--"+f.Name || f.Short != 0 && name == "-"+string(f.Short) {
				return f
			}
		}
	}
	return nil
}

func (c *completer) candidates(last string) []candidate {
	if c.flag != nil {
		return c.values(c.flag.Value, last, "")
	}
	if name, value, has := strings.Cut(last, "="); has && !c.ended && strings.HasPrefix(last, "--") {
		if f := c.find(name); f != nil {
			return c.values(f.Value, value, name+"=")
		}
		return nil
	}
	var all []candidate
	if strings.HasPrefix(last, "-") && !c.ended {
		for _, group := range c.node.AllFlags(true) {
			for _, f := range group {
				all = append(all, candidate{"--" + f.Name, f.Help})
			}
		}
		return matching(all, last)
	}
	for _, child := range c.node.Children {
		if !child.Hidden {
			all = append(all, candidate{child.Name, child.Help})
		}
	}
	if len(all) > 0 {
		return matching(all, last)
	}
	list := c.node.Positional
	switch {
	case len(list) == 0:
		return nil
	case c.given < len(list):
		return c.values(list[c.given], last, "")
	case list[len(list)-1].IsCumulative():
		return c.values(list[len(list)-1], last, "")
	}
	return nil
}

// values are the words that v can take; prefix stands before each.
func (c *completer) values(v *kong.Value, last, prefix string) []candidate {
	var all []candidate
	kind := v.Tag.Get("complete")
	switch {
	case kind == "file" || kind == "dir":
		return []candidate{{word: ":" + kind}}
	case v.Name == "cmd":
		return []candidate{{word: ":file"}}
	case v.Enum != "":
		for _, e := range v.EnumSlice() {
			all = append(all, candidate{word: e})
		}
	default:
		all = c.fromDaemon(kind)
	}
	all = matching(all, last)
	for i := range all {
		all[i].word = prefix + all[i].word
	}
	return all
}

func matching(all []candidate, prefix string) []candidate {
	return slices.DeleteFunc(all, func(c candidate) bool { return !strings.HasPrefix(c.word, prefix) })
}

// fromDaemon lists the objects of a kind, and words that stand for such.
func (c *completer) fromDaemon(kind string) []candidate {
	ctx, cancel := context.WithTimeout(c.app.ctx, completeTimeout)
	defer cancel()
	c.app.ctx = ctx
	switch kind {
	case "identity":
		return c.identities()
	case "protocol":
		return c.protocols()
	case "contact":
		return c.contacts()
	case "inbox":
		return c.received()
	case "outbox":
		return c.sent()
	case "target":
		return append(c.contacts(), candidate{api.TargetSelf, "this identity"})
	case "who":
		return append(c.contacts(), candidate{api.WhoContacts, "all contacts"}, candidate{api.WhoAnyone, "everybody"})
	}
	return nil
}

func (c *completer) contacts() []candidate {
	var out []candidate
	for _, x := range list[api.Contact](c.app, api.VerbContactList) {
		out = append(out, candidate{x.Name, x.ID52})
	}
	return out
}

// received are the oldest messages of the inbox, sent those of the outbox that
// are not delivered.
func (c *completer) received() []candidate {
	var out []candidate
	for _, m := range page[api.InboxPage](c.app, api.VerbInboxList, api.InboxListArgs{Limit: mostMessages}).Messages {
		out = append(out, candidate{m.MessageID, sender(m) + ": " + summary(textOf(m.Protocol, m.Data))})
	}
	return out
}

func (c *completer) sent() []candidate {
	var out []candidate
	for _, m := range page[api.OutboxPage](c.app, api.VerbOutboxList, api.OutboxListArgs{Limit: mostMessages}).Messages {
		out = append(out, candidate{m.MessageID, cmp.Or(m.Contact, m.To) + ": " + m.Protocol + ", " + m.State})
	}
	return out
}

// mostMessages bounds what a shell has to show.
const mostMessages = 100

// page asks a verb for a page; an empty one if it fails.
func page[T any](a *app, verb string, args any) T {
	out, _ := fetch[T](a, verb, args)
	return out
}

func (c *completer) identities() []candidate {
	var out []candidate
	for _, x := range list[api.Identity](c.app, api.VerbIdentityList) {
		out = append(out, candidate{x.Name, x.ID52})
	}
	return out
}

// protocols are the built-in ones, those served here and those granted: what
// a peer serves is not known.
func (c *completer) protocols() []candidate {
	names := []string{api.ProtocolEcho, api.ProtocolPing}
	for _, x := range list[api.Identity](c.app, api.VerbIdentityList) {
		names = append(names, x.Protocols...)
	}
	for _, x := range list[api.Grant](c.app, api.VerbGrantList) {
		names = append(names, x.Protocol)
	}
	slices.Sort(names)
	var out []candidate
	for _, name := range slices.Compact(names) {
		// Bash takes candidates into the line as they are, and a peer may have chosen it.
		if api.ShellQuote(name) == name && !strings.HasPrefix(name, "-") {
			out = append(out, candidate{word: name})
		}
	}
	return out
}

// list asks a verb for a list; none if it fails.
func list[T any](a *app, verb string) []T { return page[[]T](a, verb, struct{}{}) }
