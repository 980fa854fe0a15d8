package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

const (
	stateDir    = "/var/lib/fastn"
	diskRefuses = "ba7b2cf2de6c4a4c95f4d04c6a5e1c3d" // packaging/systemd/fastn.catalog
)

// fullDisk: a small file system under the state folder, filled in several ways.
func fullDisk(t *testing.T, m *nspawn.Machine) {
	m.Must("systemctl", "stop", "fastn.socket", "fastnd.service")
	m.Must("sh", "-c", `mkdir -p /var/lib/fastn && mount -t tmpfs -o size=4M,nr_inodes=64,mode=700,uid=fastn-daemon,gid=fastn-daemon tmpfs /var/lib/fastn`)
	t.Run("the very first start", func(t *testing.T) { firstStartOnFullDisk(t, m.For(t)) })
	m.MustAs("alice", "fastn", "contact", "add", "bob", nobodysID)
	m.MustAs("alice", "fastn", "grant", "add", "bob", "Notes")
	acknowledged := []string{"Notes"}

	all := [][]string{{"grant", "add", "bob", "Refused"}, {"grant", "remove", "bob", "Notes"},
		{"contact", "add", "carol", "4mf2447p3d77edp9ba1ts71j7gcpc8l80hsvba032jc0r6d0aea0"}, {"contact", "rename", "bob", "robert"}, {"contact", "block", "bob"},
		{"contact", "remove", "bob"}, {"id", "new", "work"}, {"id", "offline", "alice"}, {"invite"}}
	for _, c := range []struct {
		name, fill, problem, looks, room string
		refused                          [][]string // commands
	}{
		{"no space", "head -c 8M /dev/zero >/var/lib/fastn/fill", "is full", "df -h /var/lib/fastn", "rm /var/lib/fastn/fill", all},
		// The store's files are there, so that only a new key needs one.
		{"no inodes", "i=0; while : >/var/lib/fastn/i$i; do i=$((i+1)); done", "no inodes left", "df -i /var/lib/fastn", "rm /var/lib/fastn/i*",
			[][]string{{"id", "new", "work"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := m.For(t)
			from, pid := cursor(m), mainPID(m)
			s := startProbe(t, m, "alice", "hold")
			s.expect("ready")
			m.Run("sh", "-c", c.fill)
			if len(c.refused) > 1 {
				acknowledged = append(acknowledged, untilFull(m)...)
			}
			for _, args := range c.refused {
				refusedByDisk(t, m, args, c.problem, c.looks)
			}
			s.say("reads and calls go on")
			s.expect("answered")
			if got := m.MustAs("alice", "fastn", "contact", "list"); !strings.Contains(got, "bob") {
				t.Errorf("contacts while the disk is full: %q", got)
			}
			fix := toldEverywhere(t, m, from, c.problem, stateDir)
			m.Must("sh", "-c", strings.Split(fix, `"`)[1])
			if out := said(t, m, from, diskRefuses); out == "" {
				t.Error("the journal has no message of the full disk")
			}
			t.Run("a start", func(t *testing.T) {
				m := m.For(t)
				from := cursor(m)
				m.Must("systemctl", "restart", "fastnd.service")
				m.Run("sh", "-c", c.fill) // what the stop gave back
				r := m.RunAs("alice", "fastn", "contact", "list")
				if r.Code != 0 && !strings.Contains(r.Err, c.problem) {
					t.Errorf("%v", r)
				}
				t.Logf("started on a full disk: %q", statusText(m))
				if got := starts(t, m, from); got != 1 {
					t.Errorf("the daemon was started %d times", got)
				}
				stillActive(t, m)
				pid = mainPID(m)
			})
			m.Must("sh", "-c", c.room)
			m.Eventually(soon, "the daemon to go on by itself", func() bool {
				s := status(t, m)
				return !s.Node.Locked && len(s.Problems) == 0 && !strings.Contains(statusText(m), c.problem)
			})
			m.MustAs("alice", "fastn", "grant", "add", "bob", "After")
			m.MustAs("alice", "fastn", "grant", "remove", "bob", "After")
			if got := mainPID(m); got != pid {
				t.Error("the daemon was started again")
			}
			s.stdin.Close()
			s.wait()
			kept(t, m, acknowledged)
		})
	}
	t.Run("read-only", func(t *testing.T) { readOnlyDisk(t, m.For(t)) })
	kept(t, m, acknowledged)
	m.Must("systemctl", "stop", "fastn.socket", "fastnd.service")
	m.Must("umount", stateDir)
	m.Must("systemctl", "start", "fastn.socket")
}

// firstStartOnFullDisk: without room for a key there is no node, until there is.
func firstStartOnFullDisk(t *testing.T, m *nspawn.Machine) {
	m.Run("sh", "-c", "head -c 8M /dev/zero >/var/lib/fastn/fill")
	from := cursor(m)
	m.Must("systemctl", "start", "fastn.socket")
	refusedByDisk(t, m, []string{"call", "self", "Echo", "{}"}, "is full", "df -h /var/lib/fastn")
	toldEverywhere(t, m, from, "is full", stateDir)
	if !status(t, m).Node.Locked {
		t.Error("it is not locked")
	}
	stillActive(t, m)
	m.Must("rm", "/var/lib/fastn/fill")
	m.Eventually(soon, "the daemon to go on by itself", func() bool {
		s := status(t, m)
		return !s.Node.Locked && len(s.Problems) == 0
	})
	if got := starts(t, m, from); got != 1 {
		t.Errorf("the daemon was started %d times", got)
	}
}

// untilFull adds grants until one is refused and names those that were confirmed:
// the last small pieces of a file system take a few writes.
func untilFull(m *nspawn.Machine) (confirmed []string) {
	for i := range 200 {
		protocol := fmt.Sprintf("Until.full.%d", i)
		if m.RunAs("alice", "fastn", "grant", "add", "bob", protocol).Code != 0 {
			break
		}
		confirmed = append(confirmed, protocol)
	}
	return confirmed
}

func refusedByDisk(t *testing.T, m *nspawn.Machine, args []string, problem, looks string) {
	t.Helper()
	r := m.RunAs("alice", append([]string{"fastn"}, args...)...)
	lines := strings.Split(strings.TrimSpace(r.Err), "\n")
	if r.Code != 1 || len(lines) != 2 || !strings.Contains(lines[0], problem) || !strings.Contains(lines[0], stateDir) ||
		!strings.HasPrefix(lines[1], "hint: as administrator: ") || !strings.Contains(lines[1], looks) {
		t.Errorf("fastn %v: %v", args, r)
	}
}

// kept checks that what was confirmed is there, also after another start, and
// nothing of what was refused.
func kept(t *testing.T, m *nspawn.Machine, acknowledged []string) {
	t.Helper()
	m.Must("systemctl", "restart", "fastnd.service")
	got := m.MustAs("alice", "fastn", "grant", "list")
	for _, p := range acknowledged {
		if !strings.Contains(got, p) {
			t.Errorf("the grant of %s was confirmed and is gone", p)
		}
	}
	if strings.Contains(got, "Refused") || strings.Contains(m.MustAs("alice", "fastn", "id"), "work") {
		t.Errorf("what was refused is there: %s", got)
	}
}

func readOnlyDisk(t *testing.T, m *nspawn.Machine) {
	m.Must("systemctl", "stop", "fastnd.service")
	m.Must("mount", "-o", "remount,ro", stateDir)
	from := cursor(m)
	r := m.RunAs("alice", "fastn", "call", "self", "Echo", `{"message":"x"}`)
	if r.Code == 0 || !strings.Contains(r.Err, "read-only") || !strings.Contains(r.Err, stateDir) {
		t.Errorf("%v", r)
	}
	fix := toldEverywhere(t, m, from, "read-only", stateDir)
	m.Must("sh", "-c", strings.Split(fix, `"`)[1])
	stillActive(t, m)
	if got := starts(t, m, from); got != 1 {
		t.Errorf("the daemon was started %d times", got)
	}
	m.Must("mount", "-o", "remount,rw", stateDir)
	// The service's own view of the file system stays read-only until a restart.
	_, command, _ := strings.Cut(fix, "then: ")
	m.Must("sh", "-c", command)
	if s := status(t, m); s.Node.Locked || len(s.Problems) > 0 {
		t.Errorf("after the fix %q: %+v", fix, s.Problems)
	}
	m.MustAs("alice", "fastn", "call", "self", "Echo", `{"message":"x"}`)
}
