package nspawn

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestTwoMachines(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("booting machines needs root")
	}
	tree := t.TempDir()
	if err := Tree(t.Context(), DefaultSuite, tree); err != nil {
		t.Fatal(err)
	}
	a := Boot(t, Options{Name: "one", Tree: tree})
	b := Boot(t, Options{Name: "two", Tree: tree})
	Link(a, b, "2.1.1.1/24", "2.1.1.2/24")

	if got := a.Must("hostname"); got != "one" {
		t.Errorf("hostname = %q", got)
	}
	a.Must("sh", "-c", "useradd -m alice && groupadd club && usermod -aG club alice")
	if got := a.MustAs("alice", "id", "-Gn"); got != "alice club" {
		t.Errorf("groups of alice = %q", got)
	}
	if r := a.RunAs("alice", "sh", "-c", "echo $HOME; exit 7"); r.Code != 7 || r.Out != "/home/alice\n" {
		t.Errorf("command of alice: %v", r)
	}
	if b.Run("id", "alice").Code == 0 {
		t.Error("the machines share their disk")
	}
	if got := b.Must("ip", "-4", "-br", "address", "show", "eth0"); !strings.Contains(got, "2.1.1.2/24") {
		t.Errorf("address of two: %q", got)
	}

	// What systemd runs on one machine must not be touched by the other's.
	a.Must("systemd-run", "--unit=nap", "sleep", "1000")
	b.Must("systemd-run", "--unit=nap", "sleep", "1000")
	a.Must("systemctl", "stop", "nap")
	if got := b.Must("systemctl", "is-active", "nap"); got != "active" {
		t.Errorf("unit of two is %q after a stop on one", got)
	}

	id := a.Must("cat", "/proc/sys/kernel/random/boot_id", "/etc/machine-id")
	a.Reboot()
	if a.Run("systemctl", "is-active", "nap").Code == 0 {
		t.Error("a unit survived the reboot")
	}
	if !strings.HasSuffix(id, a.Must("cat", "/etc/machine-id")) || a.Run("id", "alice").Code != 0 {
		t.Error("the disk did not survive the reboot")
	}
	if got := a.Must("ip", "-br", "link", "show", "eth0"); !strings.Contains(got, "UP") {
		t.Errorf("link after the reboot: %q", got)
	}
	answers := func() bool {
		return strings.Contains(a.Run("timeout", "2", "bash", "-c", "</dev/tcp/2.1.1.2/9").Err, "refused")
	}
	if !answers() {
		t.Error("two does not answer")
	}
	b.PowerOff()
	if answers() {
		t.Error("a machine that is off answers")
	}
	b.PowerOn()
	if got := b.Must("hostname"); got != "two" {
		t.Errorf("hostname after the power came back = %q", got)
	}
	Unlink(a, b)
	if a.Run("ip", "link", "show", "eth0").Code == 0 || b.Run("ip", "link", "show", "eth0").Code == 0 {
		t.Error("the cable is still there")
	}
}

// A machine must leave nothing behind.
func TestCleanup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("booting machines needs root")
	}
	var m *Machine
	t.Run("machine", func(t *testing.T) {
		tree := t.TempDir()
		if err := Tree(t.Context(), DefaultSuite, tree); err != nil {
			t.Fatal(err)
		}
		m = Boot(t, Options{Name: "short", Tree: tree})
	})
	if _, err := os.Stat(m.Path("/")); err == nil {
		t.Error("the machine's first process is still there")
	}
	if _, err := os.Stat("/run/netns/" + m.netns); err == nil {
		t.Error("the network namespace is still there")
	}
	out, _ := exec.Command("find", "/sys/fs/cgroup", "-name", m.cgroup).CombinedOutput()
	if strings.Contains(string(out), m.cgroup) {
		t.Errorf("the control group is still there: %s", out)
	}
}
