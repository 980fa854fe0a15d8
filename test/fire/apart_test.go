package fire

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

const (
	apartOf = "FASTN_FIRE_APART" // the test that has namespaces of its own
	binOf   = "FASTN_FIRE_BIN"   // where its programs are
)

// apart runs the test in a process with namespaces of its own, those of unshare(1),
// and tells whether this is that process.
func apart(t *testing.T, namespaces ...string) bool {
	t.Helper()
	if os.Getenv(apartOf) == t.Name() {
		return true
	}
	args := append(namespaces, os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$")
	if deadline, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout", time.Until(deadline).String())
	}
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	cmd.Env = append(os.Environ(), apartOf+"="+t.Name(), binOf+"="+bin)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

// ownNetwork is apart for a network namespace.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	needsNetns(t)
	return apart(t, "--net")
}

// newLabHere is a lab of which x is the network namespace of this process.
func newLabHere(t *testing.T) *lab {
	t.Helper()
	l := &lab{
		x: &machine{link: "eth0", addr: "2.1.0.1"},
		y: &machine{ns: labName() + "y", link: "eth0", addr: "2.1.0.2"},
	}
	l.y.make(t)
	l.x.ip(t, "link", "set", "lo", "up")
	sh(t, "link", "add", l.x.link, "type", "veth", "peer", "name", l.y.link, "netns", l.y.ns)
	l.up(t)
	return l
}
