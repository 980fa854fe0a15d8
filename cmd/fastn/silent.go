package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// noAnswer is a daemon that is there and does not answer: exit code 3.
type noAnswer struct{ error }

func (n noAnswer) Unwrap() error { return n.error }

// unanswered is the error for a daemon at p that takes connections and says nothing.
func (a *app) unanswered(p place) error {
	if err := a.suspendedAt(p); err != nil {
		return err
	}
	return noAnswer{api.Errorf(api.CodeTimeout, "the daemon at %s does not answer", p.socket).WithHint("%s ends it", forceHint(p))}
}

// suspendedAt is the error for a daemon at p that is stopped by a signal; nil for
// any other, and for none.
func (a *app) suspendedAt(p place) error {
	proc, err := a.processAt(p)
	if err != nil || proc == nil {
		return nil // what is wrong there is for others to tell
	}
	defer func() { _ = proc.Release() }()
	return suspended(p, proc.Pid)
}

// suspended is the error for a process that is stopped, as by SIGSTOP or a
// debugger: it does nothing until it is continued. nil if pid is not.
func suspended(p place, pid int) error {
	switch processStatus(pid)["State"] {
	case "T", "t":
		return noAnswer{api.Errorf(api.CodeTimeout, "fastnd, pid %d, is stopped by a signal and does nothing", pid).
			WithHint(`"kill -CONT %d" lets it go on; %s ends it`, pid, forceHint(p))}
	}
	return nil
}

// forceHint is what ends a daemon that does not end itself. A socket does not say
// where the daemon lives.
func forceHint(p place) string {
	switch {
	case p.socket == api.SystemSocket:
		return `"systemctl kill -s KILL fastnd", by an administrator,`
	case p.home == "":
		return fmt.Sprintf(`"fastn --home %s daemon stop --force"`, api.ShellQuote(filepath.Dir(p.socket)))
	}
	return `"fastn daemon stop --force"`
}

// silence is how long a request may take before it is looked whether the daemon
// can answer at all.
const silence = 2 * time.Second

// tellSuspended notes that an answer will not come by itself.
func (a *app) tellSuspended() {
	p, err := a.locate()
	if err != nil {
		return
	}
	if err := a.suspendedAt(p); err != nil {
		a.note("%v; hint: %s", err, a.here(api.AsError(err).Hint))
	}
}
