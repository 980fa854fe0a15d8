package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// dyingTimeout is how long a start waits for the end of a daemon that is dying.
const dyingTimeout = 10 * time.Second

// settledHello is helloAt of a daemon that lives, or of none. One that is being
// killed takes connections still, and breaks them; then it holds its lock for a
// moment, in which the next one could not start.
func (a *app) settledHello(p place) (*api.Hello, error) {
	ctx, cancel := context.WithTimeout(a.ctx, dyingTimeout)
	defer cancel()
	for {
		h, err := a.helloAt(p)
		switch api.CodeOf(err) {
		case api.CodeOutcomeUnknown: // what it was asked changes nothing
		case api.CodeUnavailable:
			if !dying(holder(p)) {
				return h, err
			}
		default:
			return h, err
		}
		if sleep(ctx, pollEvery) != nil {
			if a.ctx.Err() != nil {
				return nil, a.ctx.Err()
			}
			return h, err
		}
	}
}

// dying tells whether the process pid, 0 for none, has begun to end: then its
// descriptors are about to be closed, and with them its locks are gone.
func dying(pid int) bool {
	if pid == 0 {
		return false
	}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err != nil || statDying(string(text))
}

// statDying reads proc_pid_stat(5): behind the name, which may hold anything but
// stands in brackets, come the state and, as the seventh, the kernel's flags.
func statDying(stat string) bool {
	const exiting = 0x4 // PF_EXITING
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 7 {
		return true // it is gone
	}
	flags, err := strconv.ParseUint(f[6], 10, 64)
	return f[0] == "Z" || f[0] == "X" || err == nil && flags&exiting != 0
}

// sleep waits for d; the error is ctx's, if that ends before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
