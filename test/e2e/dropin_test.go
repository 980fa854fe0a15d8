package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

const (
	dropInFile   = "/etc/systemd/system/fastnd.service.d/mine.conf"
	unitConfines = "5d0f3ae1c7974b7b8f3e1d0a6c94be27" // packaging/systemd/fastn.catalog
)

type dropIn struct {
	name, settings string
	setting        string // that must be named
	problem        string // part of its text, "" if it must work without one
	outsider       bool   // users are refused, with the setting named
}

// dropIns: settings that an administrator may well add, and that take away what
// fastnd needs. It must say so, and serve on as far as it can.
func dropIns(t *testing.T, m *nspawn.Machine) {
	m.Must("systemctl", "restart", "fastn.socket", "fastnd.service")
	node := status(t, m).Node.ID
	cases := []dropIn{
		{"no netlink", "RestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "RestrictAddressFamilies=", "AF_NETLINK", false},
		{"no network", "RestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX", "RestrictAddressFamilies=", "AF_INET AF_INET6 AF_NETLINK", false},
		{"private users", "PrivateUsers=yes", "PrivateUsers=", "65534", true},
		{"runtime directory", "RuntimeDirectory=fastn", "RuntimeDirectory=", "control socket", false},
		{"no state directory", "StateDirectory=", "StateDirectory=", "may not write", false},
	}
	if testutil.Torture() {
		cases = append(cases, []dropIn{
			{"read-only state", "ReadOnlyPaths=/var/lib/fastn", "", "read-only", false},
			{"state not accessible", "InaccessiblePaths=/var/lib/fastn", "", "permission denied", false},
			{"another state beside", "StateDirectory=other", "", "", false},
			{"few descriptors", "LimitNOFILE=64", "", "", false},
			{"private network", "PrivateNetwork=yes", "", "", false},
		}...)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := m.For(t)
			from := cursor(m)
			confine(m, c.settings)
			defer restore(m)
			// Clients that all want to start it.
			r := m.RunAs("alice", "sh", "-c", "for i in 1 2 3 4 5 6; do fastn status >/dev/null 2>&1 & done; wait; fastn call self Echo '{\"message\":\"x\"}'")
			if c.outsider && (r.Code != 4 || !strings.Contains(r.Err, "65534") || !strings.Contains(r.Err, c.setting)) {
				t.Errorf("a user is told: %v", r)
			}
			if c.problem == "" && r.Code != 0 {
				t.Errorf("a user's call: %v", r)
			}
			if got := starts(t, m, from); got != 1 {
				t.Errorf("the daemon was started %d times, want once", got)
			}
			stillActive(t, m)
			fix := ""
			if c.problem != "" {
				fix = toldEverywhere(t, m, from, c.problem, c.setting)
			}
			undo(t, m, fix, c.settings)
			s := status(t, m)
			if s.Node.ID != node || s.Node.Locked || len(s.Problems) != 0 {
				t.Errorf("after the fix: %+v %+v", s.Node, s.Problems)
			}
			m.MustAs("alice", "fastn", "call", "self", "Echo", `{"message":"x"}`)
		})
	}
}

func confine(m *nspawn.Machine, settings string) {
	m.Must("mkdir", "-p", "/etc/systemd/system/fastnd.service.d")
	m.WriteFile(dropInFile, "[Service]\n"+settings+"\n", 0o644)
	m.Must("systemctl", "daemon-reload")
	m.Must("systemctl", "stop", "fastnd.service")
	m.Must("systemctl", "reset-failed", "fastn.socket", "fastnd.service") // the test's own starts do not count
}

// restore is for a test that ended before its time.
func restore(m *nspawn.Machine) {
	if m.Run("rm", dropInFile).Code == 0 {
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "restart", "fastn.socket", "fastnd.service")
	}
}

func stillActive(t *testing.T, m *nspawn.Machine) {
	t.Helper()
	for _, unit := range []string{"fastn.socket", "fastnd.service"} {
		if got := strings.TrimSpace(m.Run("systemctl", "is-active", unit).Out); got != "active" {
			t.Errorf("%s is %q", unit, got)
		}
	}
}

// toldEverywhere checks that a problem is in the status, in the line of systemctl
// status and in the journal, and returns its fix.
func toldEverywhere(t *testing.T, m *nspawn.Machine, from, problem, setting string) string {
	t.Helper()
	problems := status(t, m).Problems
	i := slices.IndexFunc(problems, func(p api.Problem) bool {
		return strings.Contains(p.Text, problem) && strings.Contains(p.Text, setting)
	})
	if i < 0 {
		t.Fatalf("%q with %q is not among %+v", problem, setting, problems)
	}
	if got := statusText(m); !strings.Contains(got, problem) {
		t.Errorf("systemctl status says %q", got)
	}
	found := false
	for _, e := range entries(t, m, from) {
		found = found || e["MESSAGE_ID"] != "" && e["_SYSTEMD_UNIT"] == "fastnd.service" && strings.Contains(e["MESSAGE"]+e["FASTN_PROBLEM"], problem)
	}
	if !found {
		t.Errorf("the journal does not say %q under a message id", problem)
	}
	return problems[i].Fix
}

// undo does what the fix says: look which file it is, change that, run the rest.
func undo(t *testing.T, m *nspawn.Machine, fix, settings string) {
	t.Helper()
	_, commands, ok := strings.Cut(fix, ", then: ")
	if strings.Contains(fix, `"systemctl cat fastnd"`) {
		out := m.Must("systemctl", "cat", "fastnd")
		if !strings.Contains(out, "# "+dropInFile) || !strings.Contains(out, settings) {
			t.Errorf("systemctl cat does not show the drop-in:\n%s", out)
		}
	} else if fix != "" {
		t.Errorf("the fix %q does not say where the setting is", fix)
	}
	m.Must("rm", dropInFile)
	if !ok {
		commands = "systemctl daemon-reload && systemctl restart fastnd.service"
	}
	if r := m.Run("sh", "-c", commands); r.Code != 0 {
		t.Fatalf("%q fails: %v", commands, r)
	}
	m.Eventually(soon, "the daemon to be back", func() bool { return m.RunAs("alice", "fastn", "status").Code == 0 })
}
