package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/fastn-stack/fastnd/service/api"
)

// Exit codes, as in the manual.
const (
	exitDone           = 0
	exitFailed         = 1
	exitUsage          = 2
	exitNoDaemon       = 3
	exitNotPermitted   = 4
	exitPeerNotReached = 5
	exitNotDelivered   = 6
)

// exitCode is the one place where kinds of errors become exit codes.
func exitCode(err error) int {
	if isNotDelivered(err) {
		return exitNotDelivered
	}
	if _, ok := errors.AsType[noAnswer](err); ok {
		return exitNoDaemon
	}
	switch api.CodeOf(err) {
	case "":
		return exitDone
	case api.CodeBadRequest:
		if _, ok := errors.AsType[answered](err); ok {
			return exitFailed
		}
		return exitUsage
	case api.CodeUnavailable:
		return exitNoDaemon
	case api.CodeNotPermitted, api.CodeRefused:
		return exitNotPermitted
	case api.CodePeerUnreachable:
		return exitPeerNotReached
	default:
		return exitFailed
	}
}

// printError writes the error and its hint, one line each; with --json one line
// that is an api.Error.
func (a *app) printError(err error) {
	// Of what was done before an interruption the error says more.
	if !isNotDelivered(err) && (errors.Is(err, context.Canceled) || a.ctx.Err() != nil && api.CodeOf(err) == api.CodeCancelled) {
		err = api.Errorf(api.CodeCancelled, "interrupted")
	}
	e := api.AsError(err)
	var b bytes.Buffer
	if a.flags.JSON {
		line := api.Error{Code: e.Code, Message: err.Error(), Hint: a.hint(e), Peer: e.Peer}
		if text, err := json.Marshal(line); err == nil {
			escapeJSON(&b, append(text, '\n'))
			_, _ = a.std.Err.Write(b.Bytes())
			return
		}
	}
	b.WriteString(a.style(a.errTTY, "31", "fastn:"))
	b.WriteByte(' ')
	from := ""
	if e.Peer != "" { // or it would pass for what this program says
		who := visible(shortName(a.asked, e.Peer))
		b.WriteString(who + " answered: ")
		if e.Hint != "" {
			from = " from " + who
		}
	}
	b.WriteString(visible(err.Error()))
	if hint := a.hint(e); hint != "" {
		b.WriteString("\nhint" + from + ": ")
		b.WriteString(visible(hint))
	}
	b.WriteByte('\n')
	_, _ = a.std.Err.Write(b.Bytes())
}

func usage(format string, args ...any) *api.Error {
	return api.Errorf(api.CodeBadRequest, format, args...)
}

func failed(format string, args ...any) *api.Error {
	return api.Errorf(api.CodeInternal, format, args...)
}

// writeFailed is the error of standard output; nil for nil.
func writeFailed(err error) error {
	if err == nil {
		return nil
	}
	return failed("cannot write to standard output: %v", pathCause(err)).
		WithHint("look whether its disk is full, or what reads it has ended; what was asked for may be done")
}
