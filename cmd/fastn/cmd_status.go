package main

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

type statusCmd struct {
	Watch    bool   `help:"Show it again and again, until interrupted."`
	Interval period `help:"Time between two with --watch." default:"2s"`
}

func (*statusCmd) Help() string {
	return `What is wrong comes first, each with its fix. With --json the object has "problems", "unread", "wanted", "node",
"identities", "mail", "peers", "budgets" and "daemon"; with --watch it is one object a line.

Example:
  fastn status
  fastn status --json | jq -r '.node.addresses[]'`
}

func (c *statusCmd) run(a *app) error {
	if !c.Watch {
		return c.once(a, "")
	}
	interval := time.Duration(c.Interval)
	if interval < 100*time.Millisecond {
		return usage("--interval %v is too short: the least is 100ms", interval).
			WithHint(`try "fastn status --watch --interval 1s"`)
	}
	before := ""
	if isTerminal(a.std.Out) && !a.flags.JSON {
		before = "\x1b[H\x1b[2J"
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := c.once(a, before); err != nil {
			return endOfWatch(a, err)
		}
		select {
		case <-a.ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// endOfWatch makes an interruption, which is how watching ends, no error.
func endOfWatch(a *app, err error) error {
	if a.ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *statusCmd) once(a *app, before string) error {
	var s api.Status
	if printed, err := a.ask(api.VerbDaemonStatus, struct{}{}, &s); printed || err != nil {
		return err
	}
	b := bytes.NewBufferString(before)
	if s.Daemon.Version != version {
		h := &api.Hello{PerUser: s.Daemon.PerUser}
		s.Problems = append([]api.Problem{{Text: skewText, Fix: a.restartHint(h)}}, s.Problems...)
	}
	a.problems(b, s.Problems)
	a.mail(b, s)
	pairs(b,
		"node", nodeText(s.Node),
		"daemon", fmt.Sprintf("fastnd %s, pid %d, since %s", s.Daemon.Version, s.Daemon.PID, clock(s.Daemon.Started))+runtimeText(s.Daemon.Runtime),
		"socket", s.Daemon.Socket,
		"config", cmp.Or(s.Daemon.Config, "none, defaults hold"),
		"firewall", firewall(s.Node),
		"addresses", cmp.Or(strings.Join(s.Node.Addresses, "\n"), "none"),
	)
	b.WriteByte('\n')
	a.wanted(b, s)
	a.identities(b, s.Identities)
	b.WriteByte('\n')
	a.peers(b, s.Peers)
	if len(s.Budgets) > 0 {
		b.WriteByte('\n')
		a.budgets(b, s.Budgets)
	}
	return a.write(b)
}

func (a *app) problems(b *bytes.Buffer, list []api.Problem) {
	for _, p := range list {
		b.WriteString(a.style(a.outTTY, "31", "problem:") + " " + visible(p.Text) + "\n")
		if p.Fix != "" {
			b.WriteString("    fix: " + visible(a.here(p.Fix)) + "\n")
		}
	}
	if len(list) > 0 {
		b.WriteByte('\n')
	}
}

// mostWanted bounds what a person is told of at once: a peer chooses how many there are.
const mostWanted = 5

// mail tells of the messages of each identity that wait for a person.
func (a *app) mail(b *bytes.Buffer, s api.Status) {
	for _, m := range s.Mail {
		if m.New > 0 {
			what := yesNo(m.New == 1, "one new message", strconv.FormatInt(m.New, 10)+" new messages")
			b.WriteString(a.here(what+`, which "`+a.speaking(s, m.Identity, "fastn inbox read")+`" shows`) + "\n")
		}
		if m.Failed > 0 {
			what := yesNo(m.Failed == 1, "one message was", strconv.FormatInt(m.Failed, 10)+yesNo(m.Failed < api.FailedCounted, "", " or more")+" messages were")
			b.WriteString(a.here(what+` not delivered, which "`+a.speaking(s, m.Identity, "fastn outbox")+`" shows`) + "\n")
		}
	}
	if len(s.Mail) > 0 {
		b.WriteByte('\n')
	}
}

// speaking makes a fastn command speak for the identity with id52, if it would for
// another one.
func (a *app) speaking(s api.Status, id52, command string) string {
	speaker, name := s.DefaultIdentity, id52
	as := a.identity()
	for _, i := range s.Identities {
		if as != "" && (i.Name == as || i.ID52 == as) {
			speaker = i.ID52
		}
		if i.ID52 == id52 {
			name = i.Name
		}
	}
	if id52 == speaker {
		return command
	}
	return "fastn --as " + api.ShellQuote(name) + strings.TrimPrefix(command, "fastn")
}

// wanted tells for which protocols messages wait elsewhere, and what is to be done
// still for them to come.
func (a *app) wanted(b *bytes.Buffer, s api.Status) {
	list := s.Wanted
	for _, w := range list[:min(len(list), mostWanted)] {
		fmt.Fprintf(b, "%s has messages for %s, which %s so far\n", visible(w.Contact), visible(api.ServiceName(w.Protocol, w.Instance)),
			yesNo(w.Served, "is not granted", "nobody takes here"))
		var steps []string
		if !w.Granted {
			steps = append(steps, `"`+a.speaking(s, w.Identity, api.GrantCommand(w.Contact, w.Protocol, w.Instance))+`" allows them`)
		}
		// What takes Text would take the inbox, too.
		if !w.Served && (w.Protocol != api.ProtocolText || w.Instance != "") {
			steps = append(steps, `"`+a.speaking(s, w.Identity, api.TakeCommand(w.Protocol, w.Instance))+`" takes them`)
		}
		for _, step := range steps {
			b.WriteString(foldIndent + visible(a.here(step)) + "\n")
		}
	}
	if more := len(list) - mostWanted; more > 0 {
		b.WriteString(a.here(fmt.Sprintf(`and %d more of these: "fastn status --json" has all as "wanted"`, more)) + "\n")
	}
	if len(list) > 0 {
		b.WriteByte('\n')
	}
}

func nodeText(n api.NodeStatus) string {
	if n.Locked {
		return "locked: there is no peer-to-peer service"
	}
	return n.ID + "\n" + n.PeerID
}

// runtimeText is a line of its own, which only administrators see.
func runtimeText(r *api.Runtime) string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("\n%d goroutines, %.1f MiB heap, %d open files", r.Goroutines, float64(r.HeapBytes)/(1<<20), r.OpenFiles)
}

func firewall(n api.NodeStatus) string {
	if len(n.Ports) == 0 {
		return "no port is open"
	}
	return "let in " + strings.Join(n.Ports, " and ")
}

func (a *app) identities(b *bytes.Buffer, list []api.Identity) {
	rows := make([][]string, 0, len(list))
	for _, i := range list {
		state := yesNo(i.Online, "online", "offline")
		if i.Problem != "" {
			state = "refused" // why is a paragraph
		}
		rows = append(rows, []string{i.Name, i.ID52, i.Owner, state, strings.Join(i.Protocols, ", ")})
	}
	a.table(b, []string{"IDENTITY", "ID52", "OWNER", "STATE", "PROTOCOLS"}, rows)
}

func (a *app) peers(b *bytes.Buffer, list []api.Peer) {
	rows := make([][]string, 0, len(list))
	for _, p := range list {
		path := p.Path
		if !p.Connected {
			path = "not connected"
			if p.Reason != "" {
				path += ": " + p.Reason
			}
		}
		rows = append(rows, []string{strings.Join(once(p.Contacts), ", "), p.Node, rtt(p.RTTMicros),
			strconv.Itoa(p.Streams), path, p.Address})
	}
	a.table(b, []string{"CONTACTS", "NODE", "RTT", "STREAMS", "PATH", "ADDRESS"}, rows)
}

func (a *app) budgets(b *bytes.Buffer, list []api.BudgetUse) {
	rows := make([][]string, 0, len(list))
	for _, u := range list {
		rows = append(rows, []string{u.Budget, strconv.FormatInt(u.Used, 10), strconv.FormatInt(u.Limit, 10), u.Setting})
	}
	a.table(b, []string{"BUDGET", "USED", "LIMIT", "SETTING"}, rows)
}
