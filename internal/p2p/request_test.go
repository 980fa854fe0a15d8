package p2p_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// gate is a server whose calls wait: "hold NAME" until release(NAME), others
// are echoed.
type gate struct {
	mu      sync.Mutex
	gates   map[string]chan struct{}
	entered chan string
	ended   chan error // of the context of each held call that was not released
}

func newGate() *gate {
	return &gate{gates: make(map[string]chan struct{}), entered: make(chan string, 4096), ended: make(chan error, 4096)}
}

func (g *gate) of(name string) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gates[name] == nil {
		g.gates[name] = make(chan struct{})
	}
	return g.gates[name]
}

func (g *gate) release(name string) { close(g.of(name)) }

func (g *gate) ServeFrame(ctx context.Context, p p2p.Peer, f *wire.Frame, payload []byte, accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
	name, held := strings.CutPrefix(string(payload), "hold ")
	if !held {
		return p2ptest.Echo(ctx, p, f, payload, accept)
	}
	ch := g.of(name)
	g.entered <- name
	select {
	case <-ch:
		return &wire.Reply{}, payload
	case <-ctx.Done():
		g.ended <- ctx.Err()
		return wire.ReplyError(api.Errorf(api.CodeCancelled, "cancelled")), nil
	}
}

func wantCode(t *testing.T, err error, code api.Code) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("error %v (%s), want code %s", err, api.CodeOf(err), code)
	}
}

func recv[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(30 * time.Second):
		stacks := make([]byte, 256<<10)
		t.Fatalf("no %s; who waits for what:\n%s", what, stacks[:runtime.Stack(stacks, true)])
		panic("not reached")
	}
}

func TestAnswersInAnyOrder(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		g := newGate()
		a, b := p2ptest.NewPairOf(t, g, g, only)
		const n = 50
		done := make([]chan string, n)
		for i := range n {
			done[i] = make(chan string, 1)
			go func() {
				_, p, err := a.Request(timeout(t, 20*time.Second), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), fmt.Appendf(nil, "hold %d", i))
				done[i] <- fmt.Sprint(string(p), err)
			}()
		}
		for range n {
			recv(t, g.entered, "request")
		}
		for i := n - 1; i >= 0; i-- { // the last first, each before the next is let go
			g.release(fmt.Sprint(i))
			if got, want := recv(t, done[i], "answer"), fmt.Sprintf("hold %d<nil>", i); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	})
}

func TestCancelAndDeadlineReachTheServer(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		g := newGate()
		a, b := p2ptest.NewPairOf(t, g, g, only)
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() {
			_, _, err := a.Request(ctx, b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), []byte("hold x"))
			got <- err
		}()
		recv(t, g.entered, "request")
		cancel()
		wantCode(t, recv(t, got, "error"), api.CodeCancelled)
		if err := recv(t, g.ended, "end of the server's context"); !errors.Is(err, context.Canceled) {
			t.Fatalf("the server's context ended with %v", err)
		}
		f := p2ptest.Open(wire.Kind_KIND_CALL)
		f.GetOpen().TimeoutMs = 50
		r, _, err := a.Request(timeout(t, 20*time.Second), b.Node(), f, []byte("hold y"))
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, r.Err(), api.CodeCancelled)
		if err := recv(t, g.ended, "end of the server's context"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the server's context ended with %v", err)
		}
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, _, err = a.Request(short, b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), []byte("hold z"))
		wantCode(t, err, api.CodeTimeout)
		call(t, a, b, []byte("the stream still works"))
	})
}

func TestManyCallsAtOnce(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		a, b := p2ptest.NewPair(t, only)
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				p := bytes.Repeat([]byte{byte(i)}, 1+i*3000%(1<<20-4096))
				r, got, err := a.Request(timeout(t, 60*time.Second), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), p)
				if err != nil || r.Err() != nil || !bytes.Equal(got, p) {
					t.Errorf("call %d: %v, %d bytes of %d", i, err, len(got), len(p))
				}
			})
		}
		wg.Wait()
	})
}

// Bulky requests that the peer does not read leave the way free for small ones.
func TestBulkyRequestsDelayNoSmallOnes(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		book := p2ptest.NewBook()
		a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) {
			o.Book, o.Timing.Patience = book, time.Millisecond
		})
		listen := "/ip4/127.0.0.1/tcp/0"
		if len(a.Ports()) == 1 && strings.HasSuffix(a.Ports()[0], "udp") {
			listen = "/ip4/127.0.0.1/udp/0/quic-v1"
		}
		raw := rawHost(t, listen)
		stuck, done := make(chan bool, 8), make(chan bool)
		raw.SetStreamHandler(p2p.Protocol, func(s network.Stream) {
			defer s.Reset()
			for in := bufio.NewReader(s); ; {
				f, p, err := wire.ReadFrame(in, func(f *wire.Frame) bool {
					if f.PayloadSize > 1000 {
						stuck <- true
						<-done
					}
					return f.PayloadSize <= 1000
				}, nil)
				if err != nil || f.PayloadSize > 1000 {
					return
				}
				_, _ = wire.WriteFrame(s, &wire.Frame{Number: f.Number, Body: &wire.Frame_Reply{Reply: &wire.Reply{}}}, p)
			}
		})
		book.Add(rawID(t, raw), fmt.Sprint(raw.Addrs()[0]))
		callNode(t, a, rawID(t, raw))
		ctx, cancel := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		for range 8 { // together less than stock libp2p's window of a connection
			calls.Go(func() {
				_, _, _ = a.Request(ctx, rawID(t, raw), p2ptest.Open(wire.Kind_KIND_CALL), make([]byte, 64<<10))
			})
		}
		recv(t, stuck, "request")
		for range 10 {
			callNode(t, a, rawID(t, raw))
		}
		cancel()
		close(done)
		calls.Wait()
	})
}

func TestPeerClosesDuringACall(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		g := newGate()
		a, b := p2ptest.NewPairOf(t, g, g, only)
		got := make(chan error, 1)
		go func() {
			_, _, err := a.Request(t.Context(), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), []byte("hold x"))
			got <- err
		}()
		recv(t, g.entered, "request")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		wantCode(t, recv(t, got, "error"), api.CodeOutcomeUnknown)
		recv(t, g.ended, "end of the server's context")
	})
}

func TestOwnCloseDuringACall(t *testing.T) {
	testutil.LeakCheck(t)
	g := newGate()
	a, b := p2ptest.NewPairOf(t, g, g)
	got := make(chan error, 1)
	go func() {
		_, _, err := a.Request(t.Context(), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), []byte("hold x"))
		got <- err
	}()
	recv(t, g.entered, "request")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, recv(t, got, "error"), api.CodeOutcomeUnknown)
	_, _, err := a.Request(t.Context(), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), nil)
	wantCode(t, err, api.CodePeerUnreachable)
	if e := api.AsError(err); !strings.Contains(e.Message, "this node is stopping") || strings.Contains(e.Hint, "port") {
		t.Errorf("%s (%s)", e.Message, e.Hint)
	}
}

// What was answered before Close is told, and what is being served is waited for.
func TestAnswersLeaveBeforeClose(t *testing.T) {
	testutil.LeakCheck(t)
	for name, only := range map[string]p2ptest.Option{"quic": p2ptest.QUICOnly, "tcp": p2ptest.TCPOnly} {
		t.Run(name, func(t *testing.T) {
			for range testutil.Rounds(10, 100) {
				serving := make(chan bool, 1)
				s := p2ptest.ServeFunc(func(_ context.Context, _ p2p.Peer, _ *wire.Frame, payload []byte, _ func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
					serving <- true
					return &wire.Reply{}, payload
				})
				a, b := p2ptest.NewPairOf(t, s, s, only, func(o *p2p.Options) { o.Timing.Drain = 20 * time.Second })
				got := make(chan error, 1)
				go func() {
					r, _, err := a.Request(timeout(t, 20*time.Second), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), []byte("hello"))
					got <- errors.Join(err, r.Err())
				}()
				recv(t, serving, "request")
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				if err := recv(t, got, "answer"); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestUnreachableIsToldQuickly(t *testing.T) {
	testutil.LeakCheck(t)
	book := p2ptest.NewBook()
	a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), p2ptest.TCPOnly, func(o *p2p.Options) { o.Book = book })
	nobody := p2ptest.Key(t).ID()
	_, _, err := a.Request(timeout(t, 20*time.Second), nobody, p2ptest.Open(wire.Kind_KIND_CALL), nil)
	wantCode(t, err, api.CodePeerUnreachable)
	if !strings.Contains(err.Error(), "no address") {
		t.Errorf("%q does not say that no address is known", err)
	}

	gone := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), p2ptest.TCPOnly)
	book.Add(gone.Node(), gone.Addrs()...)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, _, err = a.Request(timeout(t, 20*time.Second), gone.Node(), p2ptest.Open(wire.Kind_KIND_CALL), nil)
	wantCode(t, err, api.CodePeerUnreachable)
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("it took %v", d)
	}
	if !strings.Contains(err.Error(), "/ip4/127.0.0.1/tcp/") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%q names no address and reason", err)
	}

	// Another node at the address is not the peer.
	other := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), p2ptest.TCPOnly)
	addr, _, _ := strings.Cut(other.Addrs()[0], "/p2p/")
	book.Add(nobody, addr)
	eventually(t, "an error that is not the remembered one", func() bool {
		_, _, err = a.Request(timeout(t, 20*time.Second), nobody, p2ptest.Open(wire.Kind_KIND_CALL), nil)
		return !strings.Contains(err.Error(), "no address")
	})
	wantCode(t, err, api.CodePeerUnreachable)
}

// eventually polls a condition that has no channel.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

func TestReplyErrorIsAReply(t *testing.T) {
	testutil.LeakCheck(t)
	seen := make(chan p2p.Peer, 1)
	s := p2ptest.ServeFunc(func(_ context.Context, p p2p.Peer, _ *wire.Frame, _ []byte, _ func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
		seen <- p
		return wire.ReplyError(api.Refusal()), nil
	})
	a, b := p2ptest.NewPairOf(t, s, s)
	r, _, err := a.Request(t.Context(), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, r.Err(), api.CodeRefused)
	p := recv(t, seen, "peer")
	if p.Node != a.Node() || p.IP != netip.MustParseAddr("127.0.0.1") || !strings.HasPrefix(p.RemoteAddr, "/ip4/127.0.0.1/") {
		t.Errorf("the server saw %+v", p)
	}
	conn, r, _, err := a.OpenStream(t.Context(), b.Node(), p2ptest.Open(wire.Kind_KIND_STREAM), nil)
	if err != nil || conn != nil {
		t.Fatal(conn, err)
	}
	wantCode(t, r.Err(), api.CodeRefused)
}

// callNode makes one call that must succeed at once.
func callNode(t *testing.T, a *p2p.Host, node identity.ID) {
	t.Helper()
	r, _, err := a.Request(timeout(t, 20*time.Second), node, p2ptest.Open(wire.Kind_KIND_CALL), []byte("hello"))
	if err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
}
