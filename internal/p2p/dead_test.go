package p2p_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// within fails t if what began then took d or longer; where others may be at work
// on this machine, much longer.
func within(t *testing.T, began time.Time, d time.Duration) {
	t.Helper()
	if !testutil.Torture() {
		d *= 5
	}
	if took := time.Since(began); took >= d {
		t.Errorf("it took %v, want less than %v", took, d)
	}
}

func wantText(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %q", err, want)
	}
}

// A machine that answers says that nobody listens: nobody waits for a timeout.
func TestRefusedDialIsToldAtOnce(t *testing.T) {
	for name, only := range map[string]p2ptest.Option{"quic": p2ptest.QUICOnly, "tcp": p2ptest.TCPOnly, "both": func(*p2p.Options) {}} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			book := p2ptest.NewBook()
			a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) { o.Book = book })
			b := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only)
			book.Add(b.Node(), b.Addrs()...)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, _, err := a.Request(t.Context(), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), nil)
			within(t, began, 3*time.Second) // QUIC's own timeout is 5 s
			wantCode(t, err, api.CodePeerUnreachable)
			wantText(t, err, "connection refused")
			wantText(t, err, strings.Split(b.Addrs()[0], "/p2p/")[0])
		})
	}
}

// Whoever waits for a dial that gets no answer hears which addresses were tried
// before its time is over, however many wait.
func TestManyWaitForASilentPeer(t *testing.T) {
	testutil.LeakCheck(t)
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	book := p2ptest.NewBook()
	a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), p2ptest.QUICOnly, func(o *p2p.Options) { o.Book = book })
	id := p2ptest.Key(t).ID()
	addr := fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", silent.LocalAddr().(*net.UDPAddr).Port)
	book.Add(id, addr)
	ctx := timeout(t, 3*time.Second)
	errs := make(chan error, 500)
	for range cap(errs) {
		go func() {
			_, _, err := a.Request(ctx, id, p2ptest.Open(wire.Kind_KIND_CALL), nil)
			if ctx.Err() != nil {
				err = errors.Join(errors.New("told too late"), err)
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		err := recv(t, errs, "error")
		wantCode(t, err, api.CodePeerUnreachable)
		wantText(t, err, addr)
	}
}

// childPair is a host with short clocks and a node in a process of its own.
func childPair(t *testing.T, transport string, timing p2p.Timing) (*p2p.Host, *childNode, *p2ptest.Book) {
	t.Helper()
	only := map[string]p2ptest.Option{"quic": p2ptest.QUICOnly, "tcp": p2ptest.TCPOnly}[transport]
	book := p2ptest.NewBook()
	a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) { o.Book, o.Timing = book, timing })
	key := p2ptest.Key(t)
	b := startNode(t, key, 0, transport, "-")
	book.Add(b.id, b.addr)
	callNode(t, a, b.id)
	return a, b, book
}

// freeze stops the node's process, and waits until it has stopped.
func (n *childNode) freeze(t *testing.T) {
	t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process to stop", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.cmd.Process.Pid))
		_, rest, _ := strings.Cut(string(b), ") ")
		return err == nil && strings.HasPrefix(rest, "T")
	})
}

// What is under way over a connection whose other end froze ends with a typed
// error before any timeout of the transport; a stream never ends cleanly.
func TestFrozenPeerIsGivenUp(t *testing.T) {
	for _, transport := range []string{"quic", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			testutil.LeakCheck(t)
			a, b, _ := childPair(t, transport, p2p.Timing{Quiet: 100 * time.Millisecond, Dead: time.Second})
			conn, r, _, err := a.OpenStream(timeout(t, 20*time.Second), b.id, p2ptest.Open(wire.Kind_KIND_STREAM), nil)
			if err != nil || r.Err() != nil {
				t.Fatal(err, r.Err())
			}
			defer conn.Close()
			b.freeze(t)
			began := time.Now()
			_, _, err = a.Request(timeout(t, 30*time.Second), b.id, p2ptest.Open(wire.Kind_KIND_CALL), nil)
			within(t, began, 10*time.Second)
			wantCode(t, err, api.CodeOutcomeUnknown)
			wantText(t, err, "nothing came from it for 1s")
			_, err = conn.Read(make([]byte, 1))
			if errors.Is(err, io.EOF) {
				t.Error("the stream seems to have come to its end")
			}
			wantCode(t, err, api.CodeAborted)
			wantText(t, err, "nothing came from it for 1s")
		})
	}
}

// A peer that is only slow to answer keeps its connection.
func TestSlowAnswerIsAwaited(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		slow := p2ptest.ServeFunc(func(ctx context.Context, _ p2p.Peer, _ *wire.Frame, payload []byte, _ func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
			select {
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
			}
			return &wire.Reply{}, payload
		})
		a, b := p2ptest.NewPairOf(t, slow, slow, only, func(o *p2p.Options) {
			o.Timing.Quiet, o.Timing.Dead = 100*time.Millisecond, 500*time.Millisecond
		})
		if got := call(t, a, b, []byte("hello")); string(got) != "hello" {
			t.Errorf("got %q", got)
		}
	})
}

// A request over a QUIC connection to a node that was killed, and is not back,
// fails soon: the machine there says that nobody listens.
func TestKilledPeerIsFoundOut(t *testing.T) {
	testutil.LeakCheck(t)
	a, b, _ := childPair(t, "quic", p2p.Timing{})
	b.kill()
	began := time.Now()
	_, _, err := a.Request(timeout(t, 30*time.Second), b.id, p2ptest.Open(wire.Kind_KIND_CALL), nil)
	within(t, began, 6*time.Second)
	wantCode(t, err, api.CodeOutcomeUnknown)
	wantText(t, err, "nobody listens")
	began = time.Now()
	_, _, err = a.Request(timeout(t, 30*time.Second), b.id, p2ptest.Open(wire.Kind_KIND_CALL), nil)
	within(t, began, 3*time.Second)
	wantCode(t, err, api.CodePeerUnreachable)
}

// A node that was killed and comes back elsewhere is found there, once it has
// connected, though the old connection is not yet known to be dead.
func TestKilledPeerComesBackElsewhere(t *testing.T) {
	testutil.LeakCheck(t)
	a, b, _ := childPair(t, "quic", p2p.Timing{})
	b.freeze(t) // answers nothing, refuses nothing
	startNode(t, b.key, 0, "quic", a.Addrs()[0])
	began := time.Now()
	eventually(t, "an answer", func() bool {
		_, _, err := a.Request(timeout(t, time.Second), b.id, p2ptest.Open(wire.Kind_KIND_CALL), nil)
		return err == nil
	})
	within(t, began, 5*time.Second)
}

// On a slow link the question whether the other end lives waits behind what was
// sent before, and the answer to that may take longer than a silence is endured.
func TestBusySlowLinkIsAlive(t *testing.T) {
	if !inNetns(t) {
		return
	}
	testutil.LeakCheck(t)
	if out, err := exec.Command("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "8mbit", "burst", "128k", "limit", "300k").CombinedOutput(); err != nil {
		t.Skipf("needs tc(8) with tbf: %v: %s", err, out)
	}
	sink := p2ptest.ServeFunc(func(_ context.Context, _ p2p.Peer, _ *wire.Frame, payload []byte, accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
		conn, err := accept(&wire.Reply{})
		if err == nil {
			_, _ = io.Copy(io.Discard, conn)
		}
		return &wire.Reply{}, payload
	})
	a, b := p2ptest.NewPairOf(t, sink, sink, p2ptest.TCPOnly, func(o *p2p.Options) {
		o.Timing.Quiet, o.Timing.Dead = 100*time.Millisecond, time.Second
		o.WindowInitial, o.WindowMax = 8<<20, 8<<20 // nothing comes back before half of it
	})
	conn, r, _, err := a.OpenStream(timeout(t, 20*time.Second), b.Node(), p2ptest.Open(wire.Kind_KIND_STREAM), nil)
	if err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	defer conn.Close()
	if _, err := conn.Write(make([]byte, 3<<20)); err != nil {
		t.Fatal(err)
	}
	if got := call(t, a, b, []byte("hello")); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
}

// A packet filter that refuses what is new, and passes what is established, is no
// sign that the node is gone: not even if the packets that ask are lost meanwhile.
func TestRefusedKnockIsNoProof(t *testing.T) {
	if !inNetns(t) {
		return
	}
	testutil.LeakCheck(t)
	g := newGate()
	a, b := p2ptest.NewPairOf(t, g, g, p2ptest.QUICOnly)
	got := make(chan error, 1)
	go func() {
		_, _, err := a.Request(timeout(t, 60*time.Second), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), []byte("hold x"))
		got <- err
	}()
	recv(t, g.entered, "request")
	silence(t) // all is acknowledged
	port := func(h *p2p.Host) string { return strings.TrimSuffix(h.Ports()[0], "/udp") }
	nft := func(text string) string {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Skipf("needs nft(8): %v: %s", err, out)
		}
		return string(out)
	}
	// Nothing gets through until 300 ms after the knock.
	nft(`table ip knock {
		set block { type ipv4_addr; flags dynamic,timeout; elements = { 127.0.0.1 timeout 1h }; }
		chain in {
			type filter hook input priority 0;
			udp dport ` + port(b) + ` udp sport != ` + port(a) + ` update @block { ip saddr timeout 300ms } counter reject with icmp type port-unreachable
			udp dport ` + port(b) + ` ip saddr @block drop
		}
	}`)
	eventually(t, "the knock", func() bool {
		return !strings.Contains(nft("list table ip knock"), "counter packets 0 ")
	})
	select {
	case err := <-got:
		t.Fatal("a live connection was given up: ", err)
	case <-time.After(2 * time.Second): // it would be given up by now
	}
	g.release("x")
	if err := recv(t, got, "answer"); err != nil {
		t.Fatal(err)
	}
}

// silence waits until no datagram has come for a while, in a network of our own.
func silence(t *testing.T) {
	t.Helper()
	const enough = 30 // looks, 10 ms each
	looks := time.NewTicker(10 * time.Millisecond)
	defer looks.Stop()
	ctx := timeout(t, 10*time.Second)
	for last, same := datagrams(t), 0; same < enough; same++ {
		select {
		case <-looks.C:
		case <-ctx.Done():
			t.Fatal("the machines do not fall silent")
		}
		if now := datagrams(t); now != last {
			last, same = now, 0
		}
	}
}

// datagrams tells how many have come in, as the kernel counts them.
func datagrams(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Udp:" && fields[1] != "InDatagrams" {
			return fields[1]
		}
	}
	t.Fatal("no count of datagrams")
	return ""
}
