package e2e

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// impatient shortens the watchdog until patient is called. Both restart the
// daemon: it learns the time when it starts.
func impatient(m *nspawn.Machine) (patient func()) {
	const folder = "/run/systemd/system/fastnd.service.d"
	m.Must("mkdir", "-p", folder)
	m.WriteFile(folder+"/watchdog.conf", "[Service]\nWatchdogSec=4s\n", 0o644)
	restart := func() {
		m.Must("systemctl", "daemon-reload")
		again(m)
		m.Must("systemctl", "restart", "fastnd.service")
	}
	restart()
	return func() {
		m.Must("rm", "-r", folder)
		restart()
	}
}

// watched makes the daemon hang and checks that systemd replaces it. It returns
// the mark in the journal from before.
func watched(t *testing.T, m *nspawn.Machine, hang func()) (from string) {
	t.Helper()
	defer impatient(m)()
	caller, _ := waiting(t, m, "alice")
	pid, socket := mainPID(m), controlSocket(m)
	from = cursor(m)
	hang()
	// The client that waited learns of it, and is served by the next daemon.
	if got := caller.line(); !strings.HasPrefix(got, string(api.CodeOutcomeUnknown)+" ") {
		t.Errorf("the call in flight ended with %q", got)
	}
	caller.say("Echo")
	caller.expect("sent")
	caller.expect("ok")
	caller.stdin.Close()
	if err := caller.wait(); err != nil {
		t.Error(err)
	}
	if got := mainPID(m); got == pid {
		t.Error("the daemon is the one that hung")
	}
	if got := controlSocket(m); got != socket {
		t.Error("there is another control socket")
	}
	m.Eventually(soon, "the journal to tell of the watchdog", func() bool {
		return strings.Contains(aboutUnit(t, m, from), "Watchdog timeout")
	})
	return from
}

// aboutUnit is what systemd said of the daemon since the mark.
func aboutUnit(t *testing.T, m *nspawn.Machine, from string) string {
	t.Helper()
	var all []string
	for _, e := range entries(t, m, from) {
		if e["UNIT"] == "fastnd.service" {
			all = append(all, e["MESSAGE"])
		}
	}
	return strings.Join(all, "\n")
}

func frozen(t *testing.T, m *nspawn.Machine) {
	watched(t, m, func() { m.Must("kill", "-STOP", mainPID(m)) })
}

// A configuration that somebody has a lease of holds up the reload, and with it the
// main loop, while clients are still served.
func hungMainLoop(t *testing.T, m *nspawn.Machine) {
	m.Must("cp", "--preserve=all", configFile, "/root/fastn.toml")
	from := watched(t, m, func() {
		lease(t, m.Path(configFile))
		m.Must("kill", "-HUP", mainPID(m))
		m.Eventually(soon, "the daemon to reload", func() bool { return statusReloading(m) })
		m.MustAs("bob", "fastn", "call", "self", "Echo", `{"message":"x"}`)
		// The next daemon finds another file.
		m.Must("mv", "/root/fastn.toml", configFile)
	})
	const probeFailed = "2292c6dc0a3d42aea585efcb58065a69" // packaging/systemd/fastn.catalog
	if got := said(t, m, from, probeFailed); !strings.Contains(got, "main loop") {
		t.Errorf("the journal does not tell what hung: %q", got)
	}
}

func statusReloading(m *nspawn.Machine) bool {
	return m.Must("systemctl", "show", "--property=ActiveState", "--value", "fastnd") == "reloading"
}

// lease has all who open the file wait until the test ends, or for as long as the kernel
// lets them (/proc/sys/fs/lease-break-time, 45 s).
func lease(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatalf("take a lease of %s: %v", path, err)
	}
}
