package e2e

import (
	"strconv"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

const configFile = "/etc/fastn/fastn.toml"

func mainPID(m *nspawn.Machine) string {
	return m.Must("systemctl", "show", "--property=MainPID", "--value", "fastnd")
}

func statusText(m *nspawn.Machine) string {
	return m.Must("systemctl", "show", "--property=StatusText", "--value", "fastnd")
}

func badReload(t *testing.T, m *nspawn.Machine) {
	good := m.Must("cat", configFile) + "\n"
	before, after, ok := strings.Cut(good, "#port = 4100\n")
	if !ok {
		t.Fatalf("%s has no line for the port:\n%s", configFile, good)
	}
	pid, from := mainPID(m), cursor(m)
	m.WriteFile(configFile, before+"prot = 4100\n"+after, 0o644)
	where := configFile + ":" + strconv.Itoa(strings.Count(before, "\n")+1)
	if r := m.Run("fastnd", "--check-config"); r.Code == 0 || !strings.Contains(r.Err, where) || !strings.Contains(r.Err, "port") {
		t.Errorf("fastnd --check-config names neither place nor the nearest key: %v", r)
	}
	m.Run("systemctl", "reload", "fastnd")                   // may or may not fail; it must not hurt
	const configRefused = "92808abfa5194705a226b4420527075b" // packaging/systemd/fastn.catalog
	m.Eventually(soon, "the journal to tell of the bad file", func() bool {
		return strings.Contains(said(t, m, from, configRefused), where)
	})
	if r := m.Run("fastn", "daemon", "reload"); r.Code == 0 || !strings.Contains(r.Err, where) {
		t.Errorf("fastn daemon reload does not tell what is wrong: %v", r)
	}
	if r := m.Run("fastn", "status"); !strings.Contains(r.Out, configFile) {
		t.Errorf("fastn status does not tell of the bad file: %v", r)
	}
	if got := m.MustAs("alice", "fastn", "call", "self", "Echo", `{"message":"still"}`); !strings.Contains(got, "Echo: still") {
		t.Errorf("call after the bad reload: %q", got)
	}
	if got := mainPID(m); got != pid {
		t.Errorf("the daemon was restarted: %s, was %s", got, pid)
	}

	m.WriteFile(configFile, good, 0o644)
	m.Must("systemctl", "reload", "fastnd")
	m.Eventually(soon, "fastn status to be clean again", func() bool {
		return !strings.Contains(m.Must("fastn", "status"), configFile+":")
	})
}

// A member's groups are fixed when the connection is made: taking the member
// out of the group must be followed by a word to the daemon.
func disconnect(t *testing.T, m *nspawn.Machine) {
	p := startProbe(t, m, "alice", "hold")
	p.expect("ready")
	other := startProbe(t, m, "bob", "hold")
	other.expect("ready")

	m.Must("gpasswd", "--delete", "alice", "fastn")
	p.say("still served")
	p.expect("answered")
	p.say("wait")
	if r := m.RunAs("bob", "fastn", "daemon", "disconnect", "alice"); r.Code != 4 {
		t.Errorf("bob is no administrator: %v", r)
	}
	m.Must("fastn", "daemon", "disconnect", "alice")
	p.expect("closed")
	if err := p.wait(); err != nil {
		t.Error(err)
	}
	if r := m.RunAs("alice", "fastn", "status"); r.Code != 3 {
		t.Errorf("alice is no member any more: %v", r)
	}
	other.say("not meant")
	other.expect("answered")
	other.stdin.Close()
	if err := other.wait(); err != nil {
		t.Error(err)
	}

	m.Must("usermod", "--append", "--groups", "fastn", "alice")
	m.MustAs("alice", "fastn", "status")
}
