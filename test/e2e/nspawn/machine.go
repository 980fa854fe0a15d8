package nspawn

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

//go:embed boot.sh
var bootScript string

const (
	bootLimit     = 2 * time.Minute
	shutdownLimit = 2 * time.Minute
	// exitReboot is what nspawn with --keep-unit returns when the machine asked
	// to be booted again (systemd-nspawn(1), "Exit Status").
	exitReboot = 133
)

// Options say what a machine is made of.
type Options struct {
	Name string // host name, unique in the test, [a-z0-9-]
	Tree string // folder that Tree filled
	// ReadOnly are folders of the host that the machine sees at the same path.
	ReadOnly []string
}

// Machine is one booted system, as one test sees it. Its methods fail that test
// when the machinery breaks; what a command inside does is reported in its
// Result. It is for one goroutine at a time.
type Machine struct {
	tb testing.TB
	*state
}

// state is the machine itself.
type state struct {
	opts    Options
	dir     string // upper, work, root, console.log
	cgroup  string
	netns   string
	unshare *exec.Cmd     // its child is nspawn, whose exit status it passes on
	exited  chan struct{} // closed when unshare is gone
	leader  int           // host pid of the machine's first process
	address string        // of eth0 (CIDR), "" without a cable
	console *os.File
}

// Boot starts a machine, waits until its systemd has finished starting, and has
// it removed without trace when the test ends.
func Boot(tb testing.TB, opts Options) *Machine {
	tb.Helper()
	id := make([]byte, 16)
	rand.Read(id)
	name := "fastn-" + hex.EncodeToString(id[:4])
	m := &Machine{tb, &state{opts: opts, dir: tb.TempDir(), netns: name, cgroup: name}}
	for _, d := range []string{"upper/etc", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(m.dir, d), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	etc := map[string]string{
		// With an empty machine-id systemd takes the boot for the very first one
		// and enables every unit it has a preset for.
		"machine-id":  hex.EncodeToString(id) + "\n",
		"hostname":    opts.Name + "\n",
		"hosts":       "127.0.0.1 localhost " + opts.Name + "\n",
		"resolv.conf": "", // mmdebstrap left the host's
	}
	for name, text := range etc {
		if err := os.WriteFile(filepath.Join(m.dir, "upper/etc", name), []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	var err error
	if m.console, err = os.Create(filepath.Join(m.dir, "console.log")); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.remove)
	host(tb, "ip", "netns", "add", m.netns)
	m.start()
	return m
}

// For is the same machine for a subtest. Without it a failure would end the test
// that booted the machine, from the subtest's goroutine.
func (m *Machine) For(tb testing.TB) *Machine { return &Machine{tb, m.state} }

func (m *Machine) start() {
	m.tb.Helper()
	ns, err := os.Open(filepath.Join("/run/netns", m.netns))
	if err != nil {
		m.tb.Fatal(err)
	}
	defer ns.Close()
	// A test binary that is killed runs no cleanup: the kernel then kills unshare,
	// with it nspawn, and, as that is the first process of a pid namespace, the
	// whole machine.
	args := []string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", bootScript, "boot.sh", m.opts.Tree, m.dir, m.cgroup, "--machine=" + m.opts.Name}
	for _, p := range m.opts.ReadOnly {
		args = append(args, "--bind-ro="+p)
	}
	cmd := exec.Command("unshare", args...)
	cmd.ExtraFiles = []*os.File{ns}
	cmd.Stdout, cmd.Stderr = m.console, m.console
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		m.tb.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		cmd.Wait() // the state is read from cmd.ProcessState
	}()
	m.unshare, m.exited, m.leader = cmd, exited, 0
	m.Eventually(bootLimit, "the machine to boot", m.booted)
}

// booted reports whether systemd inside has worked off its start-up queue.
func (m *Machine) booted() bool {
	select {
	case <-m.exited:
		m.tb.Fatalf("machine %s ended while booting: %v\n%s", m.opts.Name, m.unshare.ProcessState, m.consoleTail())
	default:
	}
	if m.leader == 0 {
		m.leader = firstProcess(m.unshare.Process.Pid)
		if m.leader == 0 {
			return false
		}
	}
	switch state := strings.TrimSpace(m.Run("systemctl", "is-system-running", "--wait").Out); state {
	case "running":
		return true
	case "degraded":
		m.tb.Fatalf("machine %s is degraded:\n%s", m.opts.Name, m.Run("systemctl", "--failed").Out)
	}
	return false
}

// firstProcess returns the machine's systemd below the given unshare process, or
// 0 if there is none yet.
func firstProcess(unshare int) int {
	for _, nspawn := range children(unshare) {
		for _, p := range children(nspawn.pid) {
			if p.name == "systemd" && p.pidInside == "1" {
				return p.pid
			}
		}
	}
	return 0
}

type process struct {
	pid       int
	name      string
	pidInside string // in the innermost pid namespace it is in
}

// children reads them from /proc: the kernel's own list of them is optional.
func children(parent int) []process {
	var found []process
	statuses, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, file := range statuses {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		field := map[string]string{}
		for line := range strings.Lines(string(text)) {
			k, v, _ := strings.Cut(line, ":")
			field[k] = strings.TrimSpace(v)
		}
		ids := strings.Fields(field["NSpid"])
		if field["PPid"] != strconv.Itoa(parent) || len(ids) == 0 {
			continue
		}
		pid, _ := strconv.Atoi(field["Pid"])
		found = append(found, process{pid: pid, name: field["Name"], pidInside: ids[len(ids)-1]})
	}
	return found
}

// Reboot restarts the machine as "systemctl reboot" does; its disk is kept.
func (m *Machine) Reboot() {
	m.tb.Helper()
	if code := m.shutdown("reboot"); code != exitReboot {
		m.tb.Fatalf("machine %s did not ask to be booted again: nspawn exited with %d", m.opts.Name, code)
	}
	m.start()
}

// PowerOff shuts the machine down in order. From then on nothing answers at its
// address: the kernel that does so is the host's.
func (m *Machine) PowerOff() {
	m.tb.Helper()
	if code := m.shutdown("poweroff"); code != 0 {
		m.tb.Fatalf("machine %s did not power off: nspawn exited with %d", m.opts.Name, code)
	}
	if m.address != "" {
		host(m.tb, "ip", "-n", m.netns, "address", "delete", m.address, "dev", "eth0")
	}
}

// PowerOn boots the machine after PowerOff, with the disk and the cable it had.
func (m *Machine) PowerOn() {
	m.tb.Helper()
	if m.address != "" {
		host(m.tb, "ip", "-n", m.netns, "address", "add", m.address, "dev", "eth0")
	}
	m.start()
}

func (m *Machine) shutdown(verb string) int {
	m.tb.Helper()
	m.Run("systemctl", verb) // may be cut off by its own success
	select {
	case <-m.exited:
	case <-time.After(shutdownLimit):
		m.tb.Fatalf("machine %s: %s took longer than %v\n%s", m.opts.Name, verb, shutdownLimit, m.consoleTail())
	}
	return m.unshare.ProcessState.ExitCode()
}

// Eventually polls ok until it holds; after limit the test fails.
func (m *Machine) Eventually(limit time.Duration, what string, ok func() bool) {
	m.tb.Helper()
	ctx, cancel := context.WithTimeout(m.tb.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			m.tb.Fatalf("machine %s: waited %v in vain for %s\n%s", m.opts.Name, limit, what, m.consoleTail())
		}
	}
}

// remove ends the machine and takes away what it left on the host.
func (m *Machine) remove() {
	if m.tb.Failed() && m.leader != 0 {
		m.tb.Logf("journal of %s:\n%s", m.opts.Name, m.journalTail())
	}
	if m.unshare != nil {
		m.kill()
	}
	m.console.Close()
	// The mounts went with the namespace; the groups are the kernel's, so that
	// removing them needs a view of the hierarchy, again in private.
	out, err := exec.Command("unshare", "--mount", "sh", "-euc", `mount --make-rprivate /
		mount -t cgroup2 cgroup2 "$1"
		[ ! -d "$1/$2" ] || find "$1/$2" -depth -type d -exec rmdir {} +`,
		"sh", filepath.Join(m.dir, "root"), m.cgroup).CombinedOutput()
	if err != nil {
		m.tb.Errorf("remove control groups of %s: %v: %s", m.opts.Name, err, out)
	}
	if out, err := exec.Command("ip", "netns", "delete", m.netns).CombinedOutput(); err != nil {
		m.tb.Errorf("remove network namespace of %s: %v: %s", m.opts.Name, err, out)
	}
}

// kill ends nspawn rather than unshare, which then reaps it and follows: with
// nspawn, the first process of its pid namespace, the kernel ends all others.
func (m *Machine) kill() {
	for _, p := range children(m.unshare.Process.Pid) {
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
	select {
	case <-m.exited:
	case <-time.After(10 * time.Second):
		m.tb.Errorf("machine %s does not end; killing its first process", m.opts.Name)
		m.unshare.Process.Kill()
		<-m.exited
	}
}

func (m *Machine) consoleTail() string {
	text, _ := os.ReadFile(m.console.Name())
	return tail(string(text), 4000)
}

func (m *Machine) journalTail() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := m.CommandContext(ctx, "root", "journalctl", "--no-pager", "-n", "150").CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v\n%s", err, m.consoleTail())
	}
	return string(out)
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// host runs a command outside the machines.
func host(tb testing.TB, args ...string) {
	tb.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}
