package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
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

const (
	// silence is how long a request may take before it is looked whether the daemon
	// can answer at all.
	silence = 2 * time.Second
	// patience is how long one that cannot is waited for, once that was told.
	patience = 5 * time.Second
)

// watched is a ctx for a request that ends, with the error as its cause, some time
// after it was told that the daemon is stopped by a signal: no answer will come by
// itself. end must be called; it waits until nothing more is told.
func (a *app) watched() (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(a.ctx)
	var watch sync.WaitGroup
	watch.Go(func() { a.watchSilence(ctx, cancel) })
	return ctx, func() {
		cancel(nil)
		watch.Wait()
	}
}

func (a *app) watchSilence(ctx context.Context, cancel context.CancelCauseFunc) {
	if sleep(ctx, silence) != nil {
		return
	}
	p, err := a.locate()
	if err != nil {
		return
	}
	if err = a.suspendedAt(p); err == nil {
		return
	}
	a.note("%v; hint: %s", err, api.AsError(err).Hint)
	if sleep(ctx, patience) != nil {
		return
	}
	if err = a.suspendedAt(p); err != nil {
		cancel(givenUp(err))
	}
}

// givenUp is the error of a request that lies before a daemon which is stopped.
func givenUp(suspended error) error {
	e := api.AsError(suspended)
	return noAnswer{api.Errorf(e.Code, "%s", e.Message).WithHint("%s; going on it may still do what was asked", e.Hint)}
}

// causeOf is why a request on a ctx of watched failed with err.
func causeOf(ctx context.Context, err error) error {
	if stopped, ok := errors.AsType[noAnswer](context.Cause(ctx)); ok && err != nil {
		return stopped
	}
	return err
}
