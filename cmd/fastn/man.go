package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// writeMan prints fastn(1) as roff, made from the grammar that is parsed.
func (a *app) writeMan() error {
	parser, err := newParser(&globals{}, a.std, "")
	if err != nil {
		return err
	}
	m := &manPage{}
	m.head()
	m.section("Global options")
	m.text("They stand before or behind the command.")
	m.flags(parser.Model.Flags)
	m.section("Commands")
	for _, top := range parser.Model.Children {
		m.command(top)
	}
	m.tail()
	return a.write(&m.Buffer)
}

type manPage struct {
	bytes.Buffer
}

func (m *manPage) line(format string, args ...any) {
	fmt.Fprintf(m, format+"\n", args...)
}

// roff escapes text for a line of its own: backslashes, hyphens that are to be
// copied, and a dot or apostrophe that would start a request.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", `\&.\|.\|.`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`, "`", `\(ga`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

func (m *manPage) section(name string) { m.line(".SH %s", strings.ToUpper(roff(name))) }

func (m *manPage) text(s string) { m.line("%s", roff(s)) }

// paragraphs writes running text; a block that starts with "Example:" is set
// as it is typed.
func (m *manPage) paragraphs(s string) {
	for block := range strings.SplitSeq(s, "\n\n") {
		rest, example := strings.CutPrefix(block, "Example:\n")
		m.line(".PP")
		if !example {
			for l := range strings.SplitSeq(block, "\n") {
				m.text(l)
			}
			continue
		}
		m.text("Example:")
		m.line(".PP\n.RS 4\n.nf")
		for l := range strings.SplitSeq(rest, "\n") {
			m.text(strings.TrimPrefix(l, "  "))
		}
		m.line(".fi\n.RE")
	}
}

func (m *manPage) head() {
	m.line(`.TH FASTN 1 "" "fastn %s" "fastn"`, roff(version))
	m.section("Name")
	m.line(`fastn \- peer\-to\-peer calls, streams and messages for every user of this machine`)
	m.section("Synopsis")
	m.line(`.B fastn`)
	m.line(`[\fB\-\-home\fR \fIDIR\fR | \fB\-\-socket\fR \fIPATH\fR] [\fB\-\-as\fR \fIIDENTITY\fR]`)
	m.line(`[\fB\-\-json\fR] [\fB\-\-quiet\fR]`)
	m.line(`\fICOMMAND\fR \&.\|.\|.`)
	m.section("Description")
	m.paragraphs(`fastn asks the fastn daemon, fastnd(8), which holds the keys and connections of all users of this
machine. Data goes to standard output, everything else to standard error. Tables are for people: programs
use --json, whose keys are those of the control socket.`)
}

func (m *manPage) flags(list []*kong.Flag) {
	for _, f := range list {
		if f.Hidden {
			continue
		}
		m.line(".TP")
		name := `\fB\-\-` + roff(f.Name) + `\fR`
		if f.Short != 0 {
			name = `\fB\-` + string(f.Short) + `\fR, ` + name
		}
		if !f.IsBool() {
			name += ` \fI` + roff(f.FormatPlaceHolder()) + `\fR`
		}
		m.line("%s", name)
		m.text(f.Help)
	}
}

// command writes a command and those below it.
func (m *manPage) command(n *kong.Node) {
	if n.Hidden {
		return
	}
	m.line(".SS %s", roff(synopsis(n)))
	m.text(n.Help)
	m.paragraphs(n.Detail)
	for _, arg := range n.Positional {
		m.line(".TP")
		m.line(`\fI%s\fR`, roff(strings.ToUpper(arg.Name)))
		m.text(arg.Help)
	}
	m.flags(n.Flags)
	for _, child := range n.Children {
		m.command(child)
	}
}

func synopsis(n *kong.Node) string {
	s := n.FullPath()
	for _, arg := range n.Positional {
		word := strings.ToUpper(arg.Name)
		if arg.IsCumulative() {
			word += " …"
		}
		if arg.Name == "cmd" {
			word = "-- " + word
		}
		if !arg.Required {
			word = "[" + word + "]"
		}
		s += " " + word
	}
	if len(n.Children) > 0 {
		s += " COMMAND"
	}
	return s
}

func (m *manPage) items(kv ...string) {
	for i := 0; i < len(kv); i += 2 {
		m.line(".TP")
		m.line(`\fB%s\fR`, roff(kv[i]))
		m.text(kv[i+1])
	}
}

func (m *manPage) tail() {
	m.section("Exit status")
	m.items(
		"0", "Done.",
		"1", "Failed, or refused as wrong by the daemon or the peer.",
		"2", "The command line, or a value on it, is wrong, as fastn itself can tell; nothing was sent.",
		"3", "The daemon is not reachable, or its socket is not permitted.",
		"4", "Not permitted, here or by the peer.",
		"5", "The peer is not reachable.",
		"6", "Queued, but not delivered in time.")
	m.text("A failure is told on standard error: a line that starts with fastn: and one that starts with hint: behind it. With --json it is one line, an object with code, message and hint; the codes are those of the control socket. What the peer said, its program or its machine, is told as such, and with --json the object has its id52 as peer: message and hint are its words then.")
	m.section("Environment")
	m.items(
		"FASTN_HOME", "Folder of a per-user daemon, as --home.",
		"FASTN_SOCKET", "Path of the control socket, as --socket; it goes before FASTN_HOME.",
		"FASTN_AS", "Identity to act as, as --as.",
		"NO_COLOR", "If set, nothing is coloured.")
	m.section("Files")
	m.items(
		"/run/fastn/daemon.sock", "The system daemon's control socket. It is used unless another one is named.",
		"~/.fastn/daemon.sock", "That of the per-user daemon, used if the system's is not there or not permitted.",
		"~/.fastn/fastnd.log", "What the per-user daemon logs.")
	m.section("See also")
	m.line(`.BR fastnd (8),`)
	m.line(`.BR fastn.toml (5)`)
}
