package systemd

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// fakeManager is a socket in place of the service manager's.
func fakeManager(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		buf := make([]byte, 4096)
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestNotify(t *testing.T) {
	next := fakeManager(t)
	var n Notifier
	for _, tt := range []struct {
		call func() error
		want string
	}{
		{func() error { return n.Ready("listening on port 4100") }, "READY=1\nSTATUS=listening on port 4100"},
		{func() error { return n.Stopping() }, "STOPPING=1"},
		{func() error { return n.Extend(90*time.Second, "repairing\nREADY=1") }, "EXTEND_TIMEOUT_USEC=90000000\nSTATUS=repairing READY=1"},
		{func() error { return n.Status("locked: x\nREADY=1\nMAINPID=1") }, "STATUS=locked: x READY=1 MAINPID=1"},
	} {
		if err := tt.call(); err != nil {
			t.Error(err)
		}
		if got := next(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestReloadingCarriesTheClock(t *testing.T) {
	next := fakeManager(t)
	before := monotonic(t)
	if err := (Notifier{}).Reloading(); err != nil {
		t.Fatal(err)
	}
	after := monotonic(t)
	text, ok := strings.CutPrefix(next(), "RELOADING=1\nMONOTONIC_USEC=")
	usec, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || usec < before || usec > after {
		t.Errorf("%q is not between %d and %d", text, before, after)
	}
}

func monotonic(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
}

func TestNotifyWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	var n Notifier
	probe := func(context.Context) error { t.Error("probed without a watchdog"); return nil }
	for _, err := range []error{n.Ready("x"), n.Reloading(), n.Stopping(), n.Status("x"), n.Watchdog(t.Context(), probe)} {
		if err != nil {
			t.Error(err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if n.Ready("x") == nil {
		t.Error("a manager that is gone is not told")
	}
	t.Setenv("WATCHDOG_USEC", "often")
	if n.Watchdog(t.Context(), probe) == nil {
		t.Error("a bad WATCHDOG_USEC is not told")
	}
	t.Setenv("WATCHDOG_USEC", "1000")
	t.Setenv("WATCHDOG_PID", "1")
	if err := n.Watchdog(t.Context(), probe); err != nil {
		t.Error(err)
	}
}

// The manager hears from the watchdog exactly as often as a probe succeeded.
func TestWatchdogOnlyAfterProbe(t *testing.T) {
	testutil.LeakCheck(t)
	next := fakeManager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	probes := 0
	done := make(chan error)
	go func() {
		done <- (Notifier{}).Watchdog(ctx, func(context.Context) error {
			probes++
			switch {
			case probes <= 3:
				return errors.New("no answer")
			case probes == 4:
				// What is read next proves that nothing was sent before.
				return (Notifier{}).Status("first")
			}
			return nil
		})
	}()
	for i, want := range []string{"STATUS=first", "WATCHDOG=1", "WATCHDOG=1"} {
		if got := next(); got != want {
			t.Fatalf("message %d is %q, not %q", i, got, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if probes < 5 {
		t.Errorf("only %d probes", probes)
	}
}

// A probe that hangs is cut off and counts as failed.
func TestWatchdogProbeThatHangs(t *testing.T) {
	testutil.LeakCheck(t)
	next := fakeManager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	probes := 0
	done := make(chan error)
	go func() {
		done <- (Notifier{}).Watchdog(ctx, func(ctx context.Context) error {
			if probes++; probes < 3 {
				<-ctx.Done()
				return nil // a careless probe: the deadline counts all the same
			}
			if probes == 3 {
				return (Notifier{}).Status("first")
			}
			return nil
		})
	}()
	if got := next(); got != "STATUS=first" {
		t.Errorf("got %q: a hanging probe was taken for an answer", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
