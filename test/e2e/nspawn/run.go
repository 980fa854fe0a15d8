package nspawn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// runLimit bounds every command inside that has no deadline of its own.
const runLimit = 180 * time.Second

// Result is what a command inside a machine did.
type Result struct {
	Out, Err string // standard output, standard error
	Code     int    // exit status; -1 if it was killed
}

// String is for failure messages.
func (r Result) String() string {
	return fmt.Sprintf("exit status %d\nstdout: %s\nstderr: %s", r.Code, tail(r.Out, 4000), tail(r.Err, 4000))
}

// CommandContext prepares a command that runs inside as user, with the groups
// that user has in the machine's user database at that moment.
func (m *Machine) CommandContext(ctx context.Context, user string, args ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(m.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
		"--root", "--wdns=/", "--", "sh", "-c",
		`u=$1; shift; exec setpriv --reuid "$u" --regid "$(id -g "$u")" --init-groups --reset-env -- "$@"`, "sh", user}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "TERM=dumb"}
	// The command inside may outlive nsenter with the pipe still open.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Run runs a command as root.
func (m *Machine) Run(args ...string) Result {
	m.tb.Helper()
	return m.RunInput("root", "", args...)
}

// RunAs runs a command as a user of the machine.
func (m *Machine) RunAs(user string, args ...string) Result {
	m.tb.Helper()
	return m.RunInput(user, "", args...)
}

// RunInput is RunAs with something on standard input.
func (m *Machine) RunInput(user, input string, args ...string) Result {
	m.tb.Helper()
	ctx, cancel := context.WithTimeout(m.tb.Context(), runLimit)
	defer cancel()
	cmd := m.CommandContext(ctx, user, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.tb.Fatalf("run %q in %s: %v", args, m.opts.Name, err)
	}
	if ctx.Err() != nil {
		m.tb.Fatalf("%q in %s took longer than %v\nstdout: %s\nstderr: %s", args, m.opts.Name, runLimit, &out, &errs)
	}
	return Result{Out: out.String(), Err: errs.String(), Code: cmd.ProcessState.ExitCode()}
}

// Must runs a command as root that has to succeed and returns its output
// without surrounding space.
func (m *Machine) Must(args ...string) string {
	m.tb.Helper()
	return m.MustAs("root", args...)
}

// MustAs is Must as another user.
func (m *Machine) MustAs(user string, args ...string) string {
	m.tb.Helper()
	r := m.RunAs(user, args...)
	if r.Code != 0 {
		m.tb.Fatalf("%s: %s in %s: %v", user, strings.Join(args, " "), m.opts.Name, r)
	}
	return strings.TrimSpace(r.Out)
}

// Path is where the host finds a path of the running machine.
func (m *Machine) Path(inside string) string {
	return filepath.Join("/proc", strconv.Itoa(m.leader), "root", inside)
}

// CopyIn puts a file of the host into the machine.
func (m *Machine) CopyIn(from, inside string, mode os.FileMode) {
	m.tb.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		m.tb.Fatal(err)
	}
	m.WriteFile(inside, string(data), mode)
}

// WriteFile writes a file of root's inside the machine.
func (m *Machine) WriteFile(inside, text string, mode os.FileMode) {
	m.tb.Helper()
	if err := os.WriteFile(m.Path(inside), []byte(text), mode); err != nil {
		m.tb.Fatal(err)
	}
	if err := os.Chmod(m.Path(inside), mode); err != nil {
		m.tb.Fatal(err)
	}
}

// Link joins two machines by a cable: interface eth0 in both, with the given
// addresses (CIDR). There is no route beyond the cable.
func Link(a, b *Machine, addrA, addrB string) {
	a.tb.Helper()
	host(a.tb, "ip", "link", "add", "eth0", "netns", a.netns, "type", "veth", "peer", "name", "eth0", "netns", b.netns)
	a.address, b.address = addrA, addrB
	for _, m := range []*Machine{a, b} {
		host(a.tb, "ip", "-n", m.netns, "address", "add", m.address, "dev", "eth0")
		host(a.tb, "ip", "-n", m.netns, "link", "set", "eth0", "up")
	}
}

// Unlink takes the cable between two machines away.
func Unlink(a, b *Machine) {
	a.tb.Helper()
	host(a.tb, "ip", "-n", a.netns, "link", "delete", "eth0")
	a.address, b.address = "", ""
}
