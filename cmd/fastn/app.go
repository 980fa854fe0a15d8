package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// app is one run of the program.
type app struct {
	ctx    context.Context
	std    stdio
	flags  globals
	outTTY bool // colours and escapes on standard output
	errTTY bool
	conn   daemon // opened on first use by daemon()

	asked   string // the peer, as the user names it
	command string // the one that runs, as in "fastn id new"; "" before it is known
}

func newApp(ctx context.Context, std stdio) *app {
	colours := os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	a := &app{ctx: ctx, std: std}
	a.outTTY = colours && isTerminal(std.Out)
	a.errTTY = colours && isTerminal(std.Err)
	return a
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

func (a *app) close() {
	if a.conn != nil {
		_ = a.conn.Close()
	}
}

// note tells a person what was done or is about to be, on standard error. The
// commands that it quotes get the flags that the user gave, as those of hints.
func (a *app) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !a.flags.Quiet && text != "" {
		fmt.Fprintln(a.std.Err, visible(a.here(text)))
	}
}

// noticeable is after what time a person wants to know what is waited for.
const noticeable = time.Second

// noteLater is a note, on a terminal only, about what lasts long. end must be called
// before anything else is written; after it nothing is told.
func (a *app) noteLater(format string, args ...any) (end func()) {
	if !isTerminal(a.std.Err) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(a.ctx)
	var later sync.WaitGroup
	later.Go(func() {
		if sleep(ctx, noticeable) == nil {
			a.note(format, args...)
		}
	})
	return func() {
		cancel()
		later.Wait()
	}
}

// warn is a note that should be heeded.
func (a *app) warn(text, hint string) {
	if a.flags.Quiet || text == "" {
		return
	}
	line := a.style(a.errTTY, "33", "warning:") + " " + visible(a.here(text)) + "\n"
	if hint != "" {
		line += "hint: " + visible(a.here(hint)) + "\n"
	}
	_, _ = a.std.Err.WriteString(line)
}

// done ends a command that has no data of its own: JSON gets the daemon's
// answer, a person one line on standard error.
func (a *app) done(raw json.RawMessage, format string, args ...any) error {
	if a.flags.JSON {
		return a.printJSON(raw)
	}
	a.note(format, args...)
	return nil
}

func (a *app) write(b *bytes.Buffer) error {
	_, err := a.std.Out.Write(b.Bytes())
	return writeFailed(err)
}

// ask runs a verb and decodes its answer into out. With --json the answer is
// printed as it came and printed is true.
func (a *app) ask(verb string, args, out any, files ...*os.File) (printed bool, err error) {
	raw, err := a.verb(verb, args, files...)
	if err != nil {
		return false, err
	}
	if a.flags.JSON {
		return true, a.printJSON(raw)
	}
	return false, decode(raw, out)
}

func decode(raw json.RawMessage, out any) error {
	if err := json.Unmarshal(raw, out); err != nil {
		return failed("the daemon's answer is not understood: %v", err).
			WithHint(`compare the versions with "fastn version"`)
	}
	return nil
}

// verb runs a management verb as the identity chosen by --as.
func (a *app) verb(verb string, args any, files ...*os.File) (json.RawMessage, error) {
	d, err := a.daemon()
	if err != nil {
		return nil, err
	}
	ctx, end := a.watched()
	defer end()
	raw, err := d.Verb(ctx, verb, args, files...)
	return raw, a.explain(causeOf(ctx, err))
}

// identity is the `from` of requests; empty lets the daemon choose.
func (a *app) identity() string {
	if a.flags.As != "" {
		return a.flags.As
	}
	return os.Getenv("FASTN_AS")
}

// confirm asks a person; who is not at a terminal does not agree.
func (a *app) confirm(format string, args ...any) bool {
	if !isTerminal(a.std.In) || !isTerminal(a.std.Err) {
		return false
	}
	fmt.Fprint(a.std.Err, visible(fmt.Sprintf(format, args...))+" [y/N] ")
	var word string
	_, _ = fmt.Fscanln(a.std.In, &word)
	return word == "y" || word == "yes"
}
