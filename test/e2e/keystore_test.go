package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

const nodeKey = "/var/lib/fastn/keystore/node.key"

// A refused key must lock the daemon, not end it: a waiting client would start
// it again and again until systemd gives up and takes the socket away.
func TestLockedKeystore(t *testing.T) { onEach(t, testLockedKeystore) }

func testLockedKeystore(t *testing.T, s suite) {
	m := boot(t, s, "locked")
	install(t, m)
	addUser(m, "alice", "fastn")
	enable(m)
	m.MustAs("alice", "fastn", "status")
	node := status(t, m).Node.ID
	m.Must("cp", "--preserve=all", nodeKey, "/root/backup.key")

	for _, c := range []struct{ name, damage string }{
		{"mode 0644", "chmod 0644 " + nodeKey},
		{"wrong owner", "chown root " + nodeKey},
		{"symlink", "mv " + nodeKey + " /var/lib/fastn/elsewhere.key && ln -s ../elsewhere.key " + nodeKey},
		{"hard link", "ln " + nodeKey + " /var/lib/fastn/elsewhere.hard"},
		{"garbage", "head -c 200 /dev/urandom > " + nodeKey},
		{"folder open to others", "chmod 0755 /var/lib/fastn/keystore"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := m.For(t)
			m.Must("systemctl", "stop", "fastnd.service")
			m.Must("sh", "-c", c.damage)
			from := cursor(m)
			// Clients that all want to start it.
			if r := m.RunAs("alice", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do fastn status >/dev/null & done; wait"); r.Code != 0 {
				t.Errorf("%v", r)
			}
			locked(t, m, from)
			unlock(t, m, node, c.damage)
		})
	}
}

func status(t *testing.T, m *nspawn.Machine) api.Status {
	t.Helper()
	var s api.Status
	if err := json.Unmarshal([]byte(m.Must("fastn", "status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func locked(t *testing.T, m *nspawn.Machine, from string) {
	t.Helper()
	if got := starts(t, m, from); got != 1 {
		t.Errorf("the daemon was started %d times, want once", got)
	}
	for _, unit := range []string{"fastn.socket", "fastnd.service"} {
		if got := strings.TrimSpace(m.Run("systemctl", "is-active", unit).Out); got != "active" {
			t.Errorf("%s is %q while locked", unit, got)
		}
	}
	s := status(t, m)
	if !s.Node.Locked {
		t.Fatalf("not locked: %+v", s.Node)
	}
	if got := statusText(m); !strings.Contains(got, "keystore") && !strings.Contains(got, "locked") {
		t.Errorf("systemctl status says %q", got)
	}
	const keystoreLocked = "93f61d7fce6541fcba80f0b3734539d6" // packaging/systemd/fastn.catalog
	if out := said(t, m, from, keystoreLocked); !strings.Contains(out, "/var/lib/fastn/keystore") {
		t.Errorf("the journal does not name the file: %q", out)
	}
	// Nothing of the network is open, and a user is told why.
	if out := m.Must("ss", "-Htuln", "sport = :4100"); out != "" {
		t.Errorf("it listens while locked: %s", out)
	}
	r := m.RunAs("alice", "fastn", "ping", nobodysID)
	if r.Code == 0 || !strings.Contains(r.Err, "locked") {
		t.Errorf("a user who wants to reach a peer is told: %v", r)
	}
}

// unlock does exactly what status says, then reloads.
func unlock(t *testing.T, m *nspawn.Machine, node, damage string) {
	t.Helper()
	problems := status(t, m).Problems
	i := slices.IndexFunc(problems, func(p api.Problem) bool { return strings.Contains(p.Text, "/var/lib/fastn/keystore") })
	if i != 0 {
		t.Fatalf("the problem with the keystore is not the first of %+v", problems)
	}
	fix := problems[i].Fix
	if out := m.Must("fastn", "status"); fix == "" || !strings.Contains(out, fix) {
		t.Fatalf("fastn status does not show the fix %q:\n%s", fix, out)
	}
	pid := mainPID(m)
	if by, then, ok := strings.Cut(fix, "restore the file "+nodeKey+" from a backup, then: "); ok {
		// By hand: no command that follows a link is given to root.
		switch by {
		case "":
		case "move " + nodeKey + " away and ":
			m.Must("mv", nodeKey, "/root/moved-away")
		default:
			t.Errorf("the fix is %q", fix)
		}
		m.Must("cp", "--preserve=all", "/root/backup.key", nodeKey)
		fix = then
	} else if strings.Contains(damage, "ln ") {
		t.Errorf("root is to paste %q though there is a link", fix)
	}
	if !strings.HasSuffix(fix, "systemctl reload fastnd") {
		t.Errorf("the fix %q does not end with the reload", fix)
	}
	if r := m.Run("sh", "-c", fix); r.Code != 0 {
		t.Fatalf("the fix %q fails: %v", fix, r)
	}
	m.Eventually(soon, "the reload to unlock", func() bool { return !status(t, m).Node.Locked })
	s := status(t, m)
	if s.Node.ID != node {
		t.Errorf("the node is %q now, was %q", s.Node.ID, node)
	}
	if len(s.Problems) != 0 && strings.Contains(s.Problems[0].Text, "keystore") {
		t.Errorf("still a problem: %+v", s.Problems[0])
	}
	if got := mainPID(m); got != pid {
		t.Error("the daemon was restarted")
	}
	if out := m.Must("ss", "-Htuln", "sport = :4100"); !strings.Contains(out, "4100") {
		t.Error("it does not listen after the unlocking")
	}
	m.MustAs("alice", "fastn", "call", "self", "Echo", `{"message":"x"}`)
}
