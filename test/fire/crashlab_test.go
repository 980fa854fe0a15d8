package fire

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// lab is two machines, network namespaces, and a cable between them.
type lab struct{ x, y *machine }

// machine is a network namespace with one link to the other one; without a name, that
// of this process.
type machine struct{ ns, link, addr string }

var labs atomic.Int64

func newLab(t *testing.T, over cable) *lab {
	t.Helper()
	needsNetns(t)
	id := labName()
	l := &lab{
		x: &machine{ns: id + "x", link: "eth0", addr: "2.1.0.1"},
		y: &machine{ns: id + "y", link: "eth0", addr: "2.1.0.2"},
	}
	if over == ipv6 {
		l.x.addr, l.y.addr = "2001:db9::1", "2001:db9::2"
	}
	l.x.make(t)
	l.y.make(t)
	sh(t, "link", "add", l.x.link, "netns", l.x.ns, "type", "veth", "peer", "name", l.y.link, "netns", l.y.ns)
	l.up(t)
	return l
}

func needsNetns(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip(8)")
	}
}

func labName() string { return fmt.Sprintf("ff%x-%d", os.Getpid(), labs.Add(1)) }

// make makes the machine, without a link.
func (m *machine) make(t *testing.T) {
	t.Helper()
	sh(t, "netns", "add", m.ns)
	t.Cleanup(func() { sh(t, "netns", "del", m.ns) })
	m.ip(t, "link", "set", "lo", "up")
}

// up puts both ends of the cable in use.
func (l *lab) up(t *testing.T) {
	t.Helper()
	for _, m := range []*machine{l.x, l.y} {
		m.ip(t, "link", "set", m.link, "up")
		m.address(t)
	}
}

func (m *machine) prefix() []string {
	if m.ns == "" {
		return nil
	}
	return []string{"ip", "netns", "exec", m.ns}
}

func (m *machine) ip(t *testing.T, args ...string) {
	t.Helper()
	if m.ns != "" {
		args = append([]string{"-n", m.ns}, args...)
	}
	sh(t, args...)
}

func (m *machine) six() bool { return strings.Contains(m.addr, ":") }

func (m *machine) net() string {
	if m.six() {
		return m.addr + "/64"
	}
	return m.addr + "/24"
}

// address gives the machine its address.
func (m *machine) address(t *testing.T) {
	t.Helper()
	args := []string{"addr", "add", m.net(), "dev", m.link}
	if m.six() {
		args = append(args, "nodad")
	}
	m.ip(t, args...)
}

// move gives the machine another address instead of its own.
func (m *machine) move(t *testing.T, addr string) {
	t.Helper()
	m.ip(t, "addr", "del", m.net(), "dev", m.link)
	m.addr = addr
	m.address(t)
}

// silence has the machine drop whatever comes and goes.
func (m *machine) silence(t *testing.T) {
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", m.ns, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader("table ip fire {\nchain in { type filter hook input priority 0; policy drop; }\nchain out { type filter hook output priority 0; policy drop; }\n}\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

// linkDown pulls y's end of the cable for d.
func (l *lab) linkDown(t *testing.T, d time.Duration) {
	t.Helper()
	l.y.ip(t, "link", "set", l.y.link, "down")
	time.Sleep(d) // the fault itself
	l.y.ip(t, "link", "set", l.y.link, "up")
	if l.y.six() { // which a link that is down loses; who manages the network gives it back
		l.y.address(t)
	}
}

func sh(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v\n%s", args, err, out)
	}
}
