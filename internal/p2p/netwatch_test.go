package p2p_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
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
			within(t, began, 5*time.Second)
			call(t, a, b, []byte("again"))
		})
	}
}

// With IPv6 a link that is down has no addresses. Connections wait for them to come
// back, for as long as nothing is awaited over them.
func TestLinkDownOverIPv6(t *testing.T) {
	if !inNetns(t) {
		return
	}
	testutil.LeakCheck(t)
	ip(t, "link", "add", "wire", "type", "veth", "peer", "name", "end")
	ip(t, "link", "set", "end", "up")
	ip(t, "link", "set", "wire", "up")
	const addr = "2001:db9::1/64"
	add := func() { ip(t, "addr", "add", addr, "dev", "wire", "nodad") }
	add()
	for name, only := range map[string]p2ptest.Option{"quic": p2ptest.QUICOnly, "tcp": p2ptest.TCPOnly} {
		t.Run(name, func(t *testing.T) {
			events := make(chan p2p.Event, 16)
			told := make(chan []string, 64)
			book := p2ptest.NewBook()
			wild := func(o *p2p.Options) { o.Listen = []string{"::"} }
			b := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, wild)
			var a *p2p.Host
			a = p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, wild, func(o *p2p.Options) {
				o.Book, o.OnEvent = book, func(e p2p.Event) { events <- e }
				o.OnAddresses = func() { told <- a.Addrs() }
			})
			for _, x := range b.Addrs() {
				if strings.Contains(x, "2001:db9::1") {
					book.Add(b.Node(), x)
				}
			}
			eventually(t, "a way there", func() bool { // the kernel takes up to a second
				_, _, err := a.Request(timeout(t, time.Second), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), nil)
				return err == nil
			})
			s := openProto(t, a, b, "Echo")
			back := func() {
				t.Helper()
				got := make(chan error, 1)
				go func() {
					_, err := s.Write([]byte("x"))
					if err == nil {
						_, err = io.ReadFull(s, make([]byte, 1))
					}
					got <- err
				}()
				if err := recv(t, got, "echo"); err != nil {
					t.Fatal(err)
				}
			}
			back()
			if e := recv(t, events, "event"); e.Kind != p2p.EventConnected {
				t.Fatalf("event %+v", e)
			}
			seen := func(there bool) {
				t.Helper()
				for {
					now := recv(t, told, "change")
					if slices.ContainsFunc(now, func(x string) bool { return strings.Contains(x, "2001:db9::1") }) == there {
						return
					}
				}
			}
			ip(t, "link", "set", "wire", "down")
			seen(false)
			ip(t, "link", "set", "wire", "up")
			add() // as who manages the network does
			seen(true)
			back()
			select {
			case e := <-events:
				t.Errorf("event %+v", e)
			default:
			}
			// An address that goes while the link stays will not come back.
			ip(t, "addr", "del", addr, "dev", "wire")
			if e := recv(t, events, "event"); e.Kind != p2p.EventDisconnected {
				t.Fatalf("event %+v", e)
			}
			_, err := s.Read(make([]byte, 1))
			wantText(t, err, "this machine's address on it is gone") // rather than in doubt
			add()
		})
	}
}
