package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// TestRestarts ends the daemon in every way, under clients that go on.
func TestRestarts(t *testing.T) { onEach(t, testRestarts) }

func testRestarts(t *testing.T, s suite) {
	m := boot(t, s, "restarts")
	install(t, m)
	addUser(m, "alice", "fastn")
	addUser(m, "bob", "fastn")
	enable(m)
	m.MustAs("alice", "fastn", "status")
	step := func(name string, f func(*testing.T, *nspawn.Machine)) {
		t.Run(name, func(t *testing.T) { f(t, m.For(t)) })
	}
	step("kill -9 in mid-call: its outcome is unknown, the next client is served", killed)
	step("restarts under load refuse no client", restarts)
	step("an activation for each first client", activations)
	step("a frozen daemon is killed and started again", frozen)
	step("a daemon whose main loop hangs is killed and started again", hungMainLoop)
	step("a daemon that systemd has given up is brought back by what clients are told", givenUp)
	step("disconnect ends calls, streams, listeners and subscriptions", disconnectAll)
	step("calls, streams, listeners and broken connections leave nothing behind", func(t *testing.T, m *nspawn.Machine) {
		worn(t, m, "alice", api.TargetSelf)
	})
}

// controlSocket tells the socket's file from another one at its place.
func controlSocket(m *nspawn.Machine) string {
	return m.Must("stat", "--format=%i %Z", "/run/fastn/daemon.sock")
}

// again forgets the starts so far, of which systemd allows few in a short time.
func again(m *nspawn.Machine) { m.Must("systemctl", "reset-failed", "fastnd.service") }

// waiting makes user's program call a protocol of the user's own that is not
// answered, and returns when the daemon has told the program that serves it.
func waiting(t *testing.T, m *nspawn.Machine, user string) (caller *probe, server session) {
	t.Helper()
	server = connect(t, m, user)
	server.send(api.Request{ID: "L", Type: api.TypeListen, Protocol: "Never"})
	server.next("L", api.StatusOK)
	caller = startProbe(t, m, user, "calls")
	caller.say("Never")
	caller.expect("sent")
	server.incoming("L")
	return caller, server
}

func killed(t *testing.T, m *nspawn.Machine) {
	socket, from := controlSocket(m), cursor(m)
	caller, server := waiting(t, m, "alice")
	m.Must("kill", "-KILL", mainPID(m))
	if got := caller.line(); !strings.HasPrefix(got, string(api.CodeOutcomeUnknown)+" ") {
		t.Errorf("the call in flight ended with %q", got)
	}
	if line := server.line(); line != "" {
		t.Errorf("the program that serves was told %q", line)
	}
	// Both the same program, which connects anew, and another one.
	caller.say("Echo")
	caller.expect("sent")
	caller.expect("ok")
	caller.stdin.Close()
	if err := caller.wait(); err != nil {
		t.Error(err)
	}
	m.MustAs("bob", "fastn", "call", "self", "Echo", `{"message":"x"}`)
	if got := starts(t, m, from); got != 1 {
		t.Errorf("the daemon was started %d times, want once", got)
	}
	if got := controlSocket(m); got != socket {
		t.Error("there is another control socket")
	}
}

// crowd runs clients until leave, which returns how often each outcome came.
func crowd(t *testing.T, m *nspawn.Machine, user string) (leave func() map[string]int) {
	t.Helper()
	load := startProbe(t, m, user, "crowd", "4")
	load.expect("ready")
	return func() map[string]int {
		load.stdin.Close()
		outcomes := map[string]int{}
		err := json.Unmarshal([]byte(load.line()), &outcomes)
		if waitErr := load.wait(); err != nil || waitErr != nil {
			t.Fatal(err, waitErr)
		}
		return outcomes
	}
}

func restarts(t *testing.T, m *nspawn.Machine) {
	rounds := testutil.Rounds(10, 100)
	socket, from := controlSocket(m), cursor(m)
	leave := crowd(t, m, "alice")
	for range rounds {
		again(m)
		m.Must("systemctl", "restart", "fastnd.service")
		m.MustAs("bob", "fastn", "call", "self", "Echo", `{"message":"x"}`)
	}
	outcomes := leave()
	t.Logf("%d restarts: %v", rounds, outcomes)
	if len(outcomes) != 1 || outcomes["ok"] < 20*rounds {
		t.Errorf("outcomes of calls during %d restarts: %v", rounds, outcomes)
	}
	if got := starts(t, m, from); got != rounds {
		t.Errorf("the daemon was started %d times, want %d", got, rounds)
	}
	if got := controlSocket(m); got != socket {
		t.Error("there is another control socket")
	}
}

func activations(t *testing.T, m *nspawn.Machine) {
	rounds := testutil.Rounds(10, 100)
	socket, from := controlSocket(m), cursor(m)
	var took []time.Duration
	for range rounds {
		again(m)
		m.Must("systemctl", "stop", "fastnd.service")
		begin := time.Now()
		m.MustAs("alice", "fastn", "call", "self", "Echo", `{"message":"x"}`)
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	t.Logf("%d activations: p50 %v, most %v, with the whole of fastn call and its way into the machine",
		rounds, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	if got := starts(t, m, from); got != rounds {
		t.Errorf("the daemon was started %d times, want %d", got, rounds)
	}
	if got := controlSocket(m); got != socket {
		t.Error("there is another control socket")
	}
	for _, unit := range []string{"fastn.socket", "fastnd.service"} {
		if got := m.Must("systemctl", "is-active", unit); got != "active" {
			t.Errorf("%s is %q", unit, got)
		}
	}
}
