package systemd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Notifier tells the service manager in which state the daemon is
// (sd_notify(3)). Without NOTIFY_SOCKET every method does nothing and returns
// nil. It has no state of its own and may be used concurrently.
type Notifier struct{}

// Ready ends the start or a reload. status is one line for systemctl status.
func (Notifier) Ready(status string) error {
	return send(daemon.SdNotifyReady, "STATUS="+oneLine(status))
}

// Reloading starts a reload, which [Notifier.Ready] ends. The time stamp lets
// systemd 253 and later tell this reload from an earlier one; older versions
// ignore it.
func (Notifier) Reloading() error {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return fmt.Errorf("monotonic clock: %w", err)
	}
	return send(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", ts.Nano()/1000))
}

// Stopping begins the shutdown.
func (Notifier) Stopping() error { return send(daemon.SdNotifyStopping) }

// Status replaces the line that systemctl status shows.
func (Notifier) Status(text string) error { return send("STATUS=" + oneLine(text)) }

// Extend has the start, or stop, that is under way take by longer from now, whatever
// the unit says; status is why. It is to be called again before that is over.
func (Notifier) Extend(by time.Duration, status string) error {
	return send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", by.Microseconds()), "STATUS="+oneLine(status))
}

// Watchdog runs until ctx ends. Each half of WATCHDOG_USEC it calls probe, and
// tells systemd that the daemon is alive if probe returned nil within a quarter
// of it. A probe that fails is not an error here: the message stays out, and
// when none came for the whole time systemd ends the daemon. Returns at once if
// no watchdog is set; the error is that of a bad setting.
//
// probe must do what a client does, so that a daemon that no longer answers is
// not kept alive by a timer that still runs. It reports its own failures.
func (Notifier) Watchdog(ctx context.Context, probe func(context.Context) error) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("watchdog: %w", err)
	}
	if limit == 0 {
		return nil
	}
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for {
		// A failure to send is treated like a failed probe: the next one may
		// succeed, and if none does systemd acts.
		_ = ping(ctx, limit/4, probe)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func ping(ctx context.Context, within time.Duration, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := probe(ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return send(daemon.SdNotifyWatchdog)
}

// send joins the lines into one datagram, so that systemd takes them together.
func send(lines ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// oneLine keeps text of any origin from adding assignments to the message.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}
