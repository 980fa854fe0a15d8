package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const units = "../../packaging/systemd/"

func readUnit(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(units + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every message id is explained, and nothing else is.
func TestCatalogExplainsEveryMessage(t *testing.T) {
	text := readUnit(t, "fastn.catalog")
	ids := MessageIDs()
	entries := strings.Split("\n"+text, "\n-- ")[1:]
	if len(entries) != len(ids) {
		t.Errorf("%d entries for %d ids", len(entries), len(ids))
	}
	for _, e := range entries {
		id, rest, _ := strings.Cut(e, "\n")
		if !slices.Contains(ids, MessageID(id)) {
			t.Errorf("%q is nobody's id", id)
		}
		head, body, ok := strings.Cut(rest, "\n\n")
		if !ok || !strings.HasPrefix(head, "Subject: ") || !strings.Contains(head, "\nDefined-By: fastn") ||
			!strings.Contains(head, "\nDocumentation: man:") || strings.Count(body, "\n\n") < 1 {
			t.Errorf("%s: needs a subject, what happened and what to do:\n%s", id, rest)
		}
	}
	seen := map[MessageID]bool{}
	for _, id := range ids {
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(string(id)) || seen[id] {
			t.Errorf("%q is malformed or used twice", id)
		}
		seen[id] = true
	}
}

// Settings that look harmless and are not; the reasons are in ARCHITECTURE and
// in the units.
func TestUnitsAvoidKnownTraps(t *testing.T) {
	service, socket := readUnit(t, "fastnd.service"), readUnit(t, "fastn.socket")
	for _, forbidden := range []string{"PrivateUsers", "RuntimeDirectory=", "LogNamespace", "Type=notify-reload", "DynamicUser"} {
		if regexp.MustCompile(`(?m)^` + forbidden).MatchString(service) {
			t.Errorf("fastnd.service has %s", forbidden)
		}
	}
	for _, line := range []string{"Type=notify", "User=fastn-daemon", "StateDirectory=fastn", "RuntimeDirectoryPreserve=yes", "StateDirectoryMode=0700", "LimitCORE=0", "MemoryDenyWriteExecute=yes", "Slice=fastn.slice", "PrivateMounts=yes"} {
		if !hasLine(service, line) {
			t.Errorf("fastnd.service lacks %s", line)
		}
	}
	if !regexp.MustCompile(`(?m)^RestrictAddressFamilies=.*\bAF_NETLINK\b`).MatchString(service) {
		t.Error("fastnd.service does not allow AF_NETLINK")
	}
	for _, line := range []string{"SocketMode=0660", "SocketGroup=fastn", "SocketUser=root", "RemoveOnStop=yes", "FileDescriptorName=control", "Also=fastnd.service", "Service=fastnd.service"} {
		if !hasLine(socket, line) {
			t.Errorf("fastn.socket lacks %s", line)
		}
	}
}

func hasLine(text, line string) bool { return slices.Contains(strings.Split(text, "\n"), line) }

// The exposure that systemd computes is 1.3 or less.
func TestServiceIsHardened(t *testing.T) {
	out := analyze(t, "security", "--offline=true", "--threshold=13", "--no-pager", units+"fastnd.service")
	if !strings.Contains(out, "Overall exposure level") {
		t.Errorf("no verdict in\n%s", out)
	}
}

func TestUnitsVerify(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"fastnd.service", "fastn.socket", "fastn.slice"} {
		// The program is not installed where the tests run.
		text := strings.Replace(readUnit(t, name), "ExecStart=/usr/sbin/fastnd", "ExecStart=/bin/true", 1)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := analyze(t, "verify", "--man=no", filepath.Join(dir, "fastnd.service"), filepath.Join(dir, "fastn.socket"), filepath.Join(dir, "fastn.slice"))
	if out != "" {
		t.Errorf("systemd-analyze verify says:\n%s", out)
	}
}

func analyze(t *testing.T, args ...string) string {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: apt-get install systemd")
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
	}
	return string(out)
}
