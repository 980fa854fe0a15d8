package p2p_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

func portOf(t *testing.T, h *p2p.Host) (port int) {
	t.Helper()
	if _, err := fmt.Sscanf(h.Ports()[0], "%d/", &port); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestReconnectAfterRestart(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		book := p2ptest.NewBook()
		events := make(chan p2p.Event, 16)
		a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) {
			o.Book, o.OnEvent = book, func(e p2p.Event) { events <- e }
		})
		key, port := p2ptest.Key(t), 0
		start := func() *p2p.Host {
			return p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) { o.Key, o.Port = key, port })
		}
		b := start()
		port = portOf(t, b)
		book.Add(b.Node(), b.Addrs()...)
		a.Protect(b.Node(), "test")
		if e := recv(t, events, "event"); e.Kind != p2p.EventConnected || e.Node != b.Node() || !strings.HasPrefix(e.Path, "direct ") {
			t.Fatalf("event %+v", e)
		}
		call(t, a, b, nil)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if e := recv(t, events, "event"); e.Kind != p2p.EventDisconnected || e.Node != b.Node() {
			t.Fatalf("event %+v", e)
		}
		again, began := start(), time.Now()
		if e := recv(t, events, "event"); e.Kind != p2p.EventConnected {
			t.Fatalf("event %+v", e)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("it took %v", d)
		}
		call(t, a, again, []byte("again"))
		a.Unprotect(b.Node(), "test")
		a.CloseNode(b.Node())
		if e := recv(t, events, "event"); e.Kind != p2p.EventDisconnected {
			t.Fatalf("event %+v", e)
		}
	})
}

// Without anyone protecting it a node is connected again by the next call.
func TestCallAfterRestart(t *testing.T) {
	testutil.LeakCheck(t)
	book := p2ptest.NewBook()
	a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), func(o *p2p.Options) { o.Book = book })
	key := p2ptest.Key(t)
	b := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), func(o *p2p.Options) { o.Key = key })
	book.Add(b.Node(), b.Addrs()...)
	call(t, a, b, nil)
	port := portOf(t, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection to be noticed as lost", func() bool { return len(a.Peers()) == 0 })
	b = p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), func(o *p2p.Options) { o.Key, o.Port = key, port })
	call(t, a, b, []byte("again"))
}

// A dial that failed is not held against a node for long: libp2p would for 5 s.
func TestCallAfterAFailedDial(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		book := p2ptest.NewBook()
		a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) {
			o.Book, o.Timing.DialAgain, o.Timing.Dial = book, time.Millisecond, 300*time.Millisecond
		})
		key, port := p2ptest.Key(t), 0
		start := func() *p2p.Host {
			return p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) { o.Key, o.Port = key, port })
		}
		b := start()
		port = portOf(t, b)
		book.Add(b.Node(), b.Addrs()...)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		_, _, err := a.Request(t.Context(), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), nil)
		wantCode(t, err, api.CodePeerUnreachable)
		b = start()
		began := time.Now()
		eventually(t, "a call that succeeds", func() bool {
			_, _, err := a.Request(t.Context(), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), nil)
			return err == nil
		})
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// The first call after a peer has started succeeds, even if a dial failed just
// before; only who has no time for another dial is told at once.
func TestCallRightAfterAPeerStarts(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		book := p2ptest.NewBook()
		a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) {
			o.Book, o.Timing.Dial, o.Timing.DialAgain = book, 300*time.Millisecond, time.Second
		})
		key, port := p2ptest.Key(t), 0
		start := func() *p2p.Host {
			return p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) { o.Key, o.Port = key, port })
		}
		b := start()
		port = portOf(t, b)
		book.Add(b.Node(), b.Addrs()...)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		_, _, first := a.Request(t.Context(), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), nil)
		wantCode(t, first, api.CodePeerUnreachable)
		began := time.Now()
		_, _, err := a.Request(timeout(t, 100*time.Millisecond), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), nil)
		if d := time.Since(began); err == nil || err.Error() != first.Error() || d > 50*time.Millisecond {
			t.Errorf("with little time, after %v: %v, want at once: %v", d, err, first)
		}
		start()
		callNode(t, a, b.Node())
	})
}

func TestStaticPeersAndAnnounceChange(t *testing.T) {
	testutil.LeakCheck(t)
	events := make(chan p2p.Event, 16)
	b := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo))
	static := map[identity.ID][]string{b.Node(): b.Addrs()}
	a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), func(o *p2p.Options) {
		o.StaticPeers, o.OnEvent = static, func(e p2p.Event) { events <- e }
		o.Timing.RedialMin = 10 * time.Millisecond
	})
	if e := recv(t, events, "event"); e.Kind != p2p.EventConnected || e.Node != b.Node() {
		t.Fatalf("event %+v", e)
	}
	a.CloseNode(b.Node())
	if e := recv(t, events, "event"); e.Kind != p2p.EventDisconnected {
		t.Fatalf("event %+v", e)
	}
	if e := recv(t, events, "event"); e.Kind != p2p.EventConnected {
		t.Fatalf("event %+v", e)
	}
	if err := a.Reconfigure([]string{"/ip4/2.3.4.5/tcp/1"}, nil); err != nil || !strings.HasPrefix(a.Addrs()[0], "/ip4/2.3.4.5/tcp/1/") {
		t.Errorf("%v, %q", err, a.Addrs())
	}
	a.CloseNode(b.Node())
	if e := recv(t, events, "event"); e.Kind != p2p.EventDisconnected {
		t.Fatalf("event %+v", e)
	}
	select {
	case e := <-events:
		t.Fatalf("event %+v of a node that is not static any more", e)
	case <-time.After(200 * time.Millisecond):
	}
	if err := a.Reconfigure([]string{"nonsense"}, static); err == nil || !strings.HasPrefix(a.Addrs()[0], "/ip4/2.3.4.5/tcp/1/") {
		t.Errorf("%v, %q", err, a.Addrs())
	}
}

func TestPeersAndLearned(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		bookA := p2ptest.NewBook()
		a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) { o.Book = bookA })
		bookB := p2ptest.NewBook()
		b := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) {
			o.Book, o.Announce = bookB, []string{"/ip4/2.3.4.5/tcp/4100"}
		})
		bookA.Add(b.Node(), b.Addrs()...)
		callNode(t, a, b.Node())
		if got := bookA.WaitLearned(t, b.Node()); !sameSet(got, b.Addrs()) {
			t.Errorf("a learned %q of b, which has %q", got, b.Addrs())
		}
		if got := bookB.WaitLearned(t, a.Node()); !sameSet(got, a.Addrs()) {
			t.Errorf("b learned %q of a, which has %q", got, a.Addrs())
		}
		p := a.Peers()
		if len(p) != 1 || p[0].Node != b.Node() || !strings.HasPrefix(p[0].Path, "direct ") || !strings.HasPrefix(p[0].Addr, "/ip4/127.0.0.1/") || time.Since(p[0].Since) > time.Minute {
			t.Errorf("peers: %+v", p)
		}
		eventually(t, "a round-trip time", func() bool { return a.Peers()[0].RTT > 0 })
		if rtt := a.Peers()[0].RTT; rtt > time.Second {
			t.Errorf("round-trip time %v on loopback", rtt)
		}
	})
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

func TestAddrsAndPorts(t *testing.T) {
	testutil.LeakCheck(t)
	h := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), func(o *p2p.Options) {
		o.Listen, o.Announce = nil, []string{"/ip4/2.3.4.5/tcp/4100"}
	})
	port := portOf(t, h)
	if got, want := h.Ports(), []string{fmt.Sprintf("%d/udp", port), fmt.Sprintf("%d/tcp", port)}; !slices.Equal(got, want) {
		t.Errorf("ports %q, want %q", got, want)
	}
	addrs := h.Addrs()
	end := "/p2p/" + h.Node().PeerID().String()
	if addrs[0] != "/ip4/2.3.4.5/tcp/4100"+end {
		t.Errorf("the announced address is not first: %q", addrs)
	}
	loopback := false
	for _, a := range addrs {
		is := strings.HasPrefix(a, "/ip4/127.") || strings.HasPrefix(a, "/ip6/::1/")
		if loopback && !is {
			t.Errorf("%q comes behind loopback: %q", a, addrs)
		}
		loopback = loopback || is
		if !strings.HasSuffix(a, end) || strings.Contains(a, "/0.0.0.0/") || strings.Contains(a, "/ip6/::/") {
			t.Errorf("address %q", a)
		}
	}
	if want := fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1%s", port, end); !slices.Contains(addrs, want) {
		t.Errorf("%q lacks %q", addrs, want)
	}
}

// Several addresses of one family share the port, and each is dialled from.
func TestSeveralAddresses(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		a, b := p2ptest.NewPair(t, only, func(o *p2p.Options) { o.Listen = []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} })
		if got := b.Addrs(); len(got) != 3 {
			t.Fatalf("addresses: %q", got)
		}
		call(t, a, b, []byte("hello"))
		book := p2ptest.NewBook()
		book.Add(b.Node(), b.Addrs()[2])
		c := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) { o.Book = book })
		call(t, c, b, []byte("hello"))
		if p := c.Peers(); !strings.HasPrefix(p[0].Addr, "/ip4/127.0.0.3/") {
			t.Errorf("connected to %q", p[0].Addr)
		}
	})
}

func TestTakenPortIsNamed(t *testing.T) {
	testutil.LeakCheck(t)
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	for proto, port := range map[string]int{
		"udp": udp.LocalAddr().(*net.UDPAddr).Port,
		"tcp": tcp.Addr().(*net.TCPAddr).Port,
	} {
		_, err := p2p.New(p2p.Options{Key: p2ptest.Key(t), Listen: []string{"127.0.0.1"}, Port: port, QUIC: true, TCP: true}, p2ptest.ServeFunc(p2ptest.Echo))
		if err == nil {
			t.Fatalf("a host took port %d/%s, which was taken", port, proto)
		}
		for _, want := range []string{fmt.Sprintf("%d/%s", port, proto), "taken", "p2p.port"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	}
	// Nor do two hosts of one user share a port.
	h := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), p2ptest.TCPOnly)
	if _, err := p2p.New(p2p.Options{Key: p2ptest.Key(t), Listen: []string{"127.0.0.1"}, Port: portOf(t, h), TCP: true}, p2ptest.ServeFunc(p2ptest.Echo)); err == nil {
		t.Error("two hosts listen on one port")
	}
}

func TestBadOptions(t *testing.T) {
	testutil.LeakCheck(t)
	good := func() p2p.Options {
		return p2p.Options{Key: p2ptest.Key(t), Listen: []string{"127.0.0.1"}, QUIC: true, TCP: true}
	}
	for name, c := range map[string]struct {
		change func(*p2p.Options)
		want   string
	}{
		"no key":             {func(o *p2p.Options) { o.Key = identity.Key{} }, "node key"},
		"no transport":       {func(o *p2p.Options) { o.QUIC, o.TCP = false, false }, "p2p.quic"},
		"no address of ours": {func(o *p2p.Options) { o.Listen = []string{"192.0.2.1"} }, "192.0.2.1"},
		"not an address":     {func(o *p2p.Options) { o.Listen = []string{"here"} }, "p2p.listen"},
		"bad announce":       {func(o *p2p.Options) { o.Announce = []string{"1.2.3.4"} }, "p2p.announce"},
		"foreign announce": {func(o *p2p.Options) {
			o.Announce = []string{"/ip4/2.3.4.5/tcp/1/p2p/" + p2ptest.Key(t).ID().PeerID().String()}
		}, "another node"},
		"bad port": {func(o *p2p.Options) { o.Port = 70000 }, "p2p.port"},
	} {
		o := good()
		c.change(&o)
		h, err := p2p.New(o, p2ptest.ServeFunc(p2ptest.Echo))
		if err == nil {
			h.Close()
			t.Errorf("%s: accepted", name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q does not say %q", name, err, c.want)
		}
	}
}
