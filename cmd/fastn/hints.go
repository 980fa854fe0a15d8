package main

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"

	"github.com/fastn-stack/fastnd/service/api"
)

// hint is the next step after e, as a person can paste it. Every failure has
// one but an interruption, which is the user's own.
func (a *app) hint(e *api.Error) string {
	if e.Hint != "" && e.Peer != "" {
		return e.Hint // its commands are not of this user's daemon
	}
	if e.Hint != "" {
		return a.here(e.Hint)
	}
	return a.here(a.anyHint(e.Code))
}

// anyHint is for errors that name no next step of their own.
func (a *app) anyHint(code api.Code) string {
	switch code {
	case api.CodeCancelled:
		return ""
	case api.CodeBadRequest, api.CodeTooLarge, api.CodeConflict, api.CodeNotFound, api.CodeUnsupported:
		return `see "` + cmp.Or(a.command, "fastn") + ` --help"`
	case api.CodeNotPermitted:
		return `"fastn grant list" shows who may do what; an administrator may do more`
	case api.CodeRefused:
		return "ask the other side to allow it"
	case api.CodePeerUnreachable, api.CodeOffline, api.CodeProtocolUnavailable, api.CodeTimeout, api.CodeClockSkew:
		return `"fastn peers" shows who is connected; ask the other side whether its daemon runs`
	case api.CodeExpired:
		return "ask the other side for a new one"
	case api.CodeAborted, api.CodeStalled, api.CodeHandlerFailed:
		return "the other side knows why: ask there, or try again; what arrived may be incomplete"
	case api.CodeOutcomeUnknown:
		return "look whether it was done before you repeat it"
	default:
		return `"fastn status" tells what is wrong with the daemon`
	}
}

// here makes the fastn commands that a hint quotes reach the daemon and
// identity that the flags chose. Hints do not quote what others are to run.
func (a *app) here(hint string) string {
	hint = strings.ReplaceAll(hint, "with timeout_ms", "with --timeout") // the protocol's word for it
	parts := strings.Split(hint, `"fastn `)
	for i, part := range parts[1:] {
		command, _, _ := strings.Cut(part, `"`)
		own, flags := leadingFlags(command), ""
		add := func(name, value string) {
			if value != "" {
				flags += name + " " + api.ShellQuote(value) + " "
			}
		}
		another := strings.HasSuffix(parts[i], "your own with ") // not the one that was asked
		if !another && !own["--home"] && !own["--socket"] {      // else it is for another daemon
			add("--home", a.flags.Home)
			add("--socket", a.flags.Socket)
			if !own["--as"] && !strings.HasPrefix(command, "id list") { // which shows all, whoever is chosen
				add("--as", a.flags.As)
			}
		}
		parts[i+1] = flags + part
	}
	return strings.Join(parts, `"fastn `)
}

// leadingFlags are those before the name of a command.
func leadingFlags(command string) map[string]bool {
	flags := map[string]bool{}
	words := strings.Fields(command)
	for i := 0; i < len(words) && strings.HasPrefix(words[i], "--"); i += 2 {
		flags[words[i]] = true
	}
	return flags
}

// restartHint tells how to run the daemon that is installed instead of h.
func (a *app) restartHint(h *api.Hello) string {
	if !h.PerUser {
		return `an administrator can run the one that is installed with "systemctl restart fastnd"`
	}
	home := ""
	if p, err := a.locate(); err == nil && p.home == "" { // a socket does not say where the daemon lives
		home = "--home " + api.ShellQuote(filepath.Dir(p.socket)) + " "
	}
	return `to run the one that is installed: "fastn ` + home + `daemon stop", then "fastn ` + home + `daemon start"`
}

// socketNamed is how the socket was named, if neither --home was: "--socket",
// "$FASTN_SOCKET" or "".
func (a *app) socketNamed() string {
	switch {
	case a.flags.Home != "":
		return ""
	case a.flags.Socket != "":
		return "--socket"
	case os.Getenv(api.EnvSocket) != "":
		return "$" + api.EnvSocket
	}
	return ""
}
