package p2p_test

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

const inNamespace = "FASTN_TEST_NETNS"

// inNetns runs the calling test again, alone, in a network namespace of its
// own; it is true there.
func inNetns(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) == t.Name() {
		ip(t, "link", "set", "lo", "up")
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, for a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip(8)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("in the namespace: %v\n%s", err, out)
	}
	return false
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v\n%s", args, err, out)
	}
}

// A connection from an address that went away is closed at once, not after the
// idle timeout; when the address is back the node is connected again.
func TestLinkChangesActAtOnce(t *testing.T) {
	if !inNetns(t) {
		return
	}
	testutil.LeakCheck(t)
	const addr = "2.9.9.1/32"
	ip(t, "addr", "add", addr, "dev", "lo")
	for name, only := range map[string]p2ptest.Option{"quic": p2ptest.QUICOnly, "tcp": p2ptest.TCPOnly} {
		t.Run(name, func(t *testing.T) {
			events := make(chan p2p.Event, 16)
			book := p2ptest.NewBook()
			wild := func(o *p2p.Options) { o.Listen = []string{"0.0.0.0"} }
			b := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, wild)
			a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, wild, func(o *p2p.Options) {
				o.Book, o.OnEvent = book, func(e p2p.Event) { events <- e }
				// Not what brings the connection back below.
				o.Timing.RedialMin, o.Timing.RedialMax = time.Hour, time.Hour
			})
			book.Add(b.Node(), b.Addrs()[0]) // not the loopback one
			a.Protect(b.Node(), "test")
			if e := recv(t, events, "event"); e.Kind != p2p.EventConnected {
				t.Fatalf("event %+v", e)
			}
			ip(t, "addr", "del", addr, "dev", "lo")
			began := time.Now()
			if e := recv(t, events, "event"); e.Kind != p2p.EventDisconnected {
				t.Fatalf("event %+v", e)
			}
			ip(t, "addr", "add", addr, "dev", "lo")
			if e := recv(t, events, "event"); e.Kind != p2p.EventConnected {
				t.Fatalf("event %+v", e)
			}
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
			call(t, a, b, []byte("again"))
		})
	}
}
