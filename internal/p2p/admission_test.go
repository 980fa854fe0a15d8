package p2p_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// knower makes a host that knows the addresses of another.
func knower(t *testing.T, s p2p.Server, of *p2p.Host, opts ...p2ptest.Option) *p2p.Host {
	t.Helper()
	book := p2ptest.NewBook()
	book.Add(of.Node(), of.Addrs()...)
	return p2ptest.New(t, s, append([]p2ptest.Option{func(o *p2p.Options) { o.Book = book }}, opts...)...)
}

func isConnected(raw host.Host, h *p2p.Host) bool {
	return raw.Network().Connectedness(h.Node().PeerID()) == network.Connected
}

// Strangers that hold connections leave room for contacts, whose connections
// nobody takes, and for each other once they are idle.
func TestStrangersLeaveRoomForContacts(t *testing.T) {
	overEach(t, func(t *testing.T, only p2ptest.Option, listen string) {
		var c circle
		echo := p2ptest.ServeFunc(p2ptest.Echo)
		h := p2ptest.New(t, echo, only, c.trusts, func(o *p2p.Options) {
			o.MaxConnections, o.Timing.Stranger = 16, time.Hour
		})
		var first, last host.Host
		for i := range 24 {
			raw := rawHost(t, listen)
			rawConnect(t, raw, h)
			eventually(t, "the places to be settled", func() bool { return h.Connections() <= 12 })
			if i == 0 {
				first = raw
			}
			last = raw
		}
		eventually(t, "the oldest to lose its place", func() bool { return !isConnected(first, h) })
		if !isConnected(last, h) {
			t.Error("the latest was not let in")
		}
		friends := make(map[*p2p.Host]time.Time)
		for range 16 {
			f := knower(t, echo, h, only)
			c.add(f.Node())
			callNode(t, f, h.Node())
			friends[f] = f.Peers()[0].Since
		}
		eventually(t, "the strangers to give way", func() bool { return h.Connections() == 16 && !isConnected(last, h) })
		rawConnectSoon(t, rawHost(t, listen), h)
		for f, since := range friends {
			callNode(t, f, h.Node())
			if p := f.Peers(); len(p) != 1 || !p[0].Since.Equal(since) {
				t.Error("a contact lost its connection")
			}
		}
	})
}

// rawConnectSoon is for a connection that may be closed as soon as it is made.
func rawConnectSoon(t *testing.T, raw host.Host, h *p2p.Host) {
	t.Helper()
	_ = raw.Connect(timeout(t, 5*time.Second), addrInfo(h))
	eventually(t, "the connection to be refused", func() bool { return !isConnected(raw, h) })
}

// A stranger that is served keeps its connection, one that is not loses it,
// however much it asks.
func TestIdleStrangersAreClosed(t *testing.T) {
	overEach(t, func(t *testing.T, only p2ptest.Option, listen string) {
		const period = time.Second // in which all of them must have asked
		var c circle
		g := newGate()
		serve := p2ptest.ServeFunc(func(ctx context.Context, p p2p.Peer, f *wire.Frame, payload []byte, accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
			if string(payload) == "refuse" {
				return wire.ReplyError(api.Refusal()), nil
			}
			return g.ServeFrame(ctx, p, f, payload, accept)
		})
		h := p2ptest.New(t, serve, only, c.trusts, func(o *p2p.Options) { o.Timing.Stranger = period })
		silent, refused, called, waiting, streaming, trusted := rawHost(t, listen), rawHost(t, listen), rawHost(t, listen), rawHost(t, listen), rawHost(t, listen), rawHost(t, listen)
		for _, raw := range []host.Host{silent, refused, called, waiting, streaming, trusted} {
			rawConnect(t, raw, h)
		}
		c.add(rawID(t, trusted))
		newRawRequests(t, waiting, h).send(openFrom("a"), []byte("hold x"))
		recv(t, g.entered, "call")
		stream, err := rawAccepted(t, streaming, h)
		if err != nil {
			t.Fatal(err)
		}
		calls, refusals := newRawRequests(t, called, h), newRawRequests(t, refused, h)
		refusals.wantAnswer(refusals.send(openFrom("a"), []byte("refuse")), api.CodeRefused)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for ctx.Err() == nil && isConnected(refused, h) {
				f := openFrom("a")
				refusals.n++
				f.Number = refusals.n
				_, _ = refusals.s.Write(frameBytes(t, f, []byte("refuse")))
				<-time.After(10 * time.Millisecond)
			}
		}()
		began := time.Now()
		for isConnected(silent, h) || isConnected(refused, h) {
			calls.wantAnswer(calls.send(openFrom("a"), []byte("hello")), "")
			<-time.After(10 * time.Millisecond) // it is the time that matters
			if time.Since(began) > 10*time.Second {
				t.Fatal("strangers of no use stay connected")
			}
		}
		for time.Since(began) < 5*period/2 {
			calls.wantAnswer(calls.send(openFrom("a"), []byte("hello")), "")
			<-time.After(10 * time.Millisecond)
		}
		for name, raw := range map[string]host.Host{"called": called, "waiting": waiting, "streaming": streaming, "trusted": trusted} {
			if !isConnected(raw, h) {
				t.Errorf("the connection of the one %s was closed", name)
			}
		}
		_ = stream.CloseWrite()
		_, _ = io.Copy(io.Discard, stream)
		g.release("x")
		eventually(t, "all but the trusted one to be closed", func() bool { return h.Connections() == 1 && isConnected(trusted, h) })
	})
}

// A connection that this side made is closed when it is of no use, too, but
// not while it is in use.
func TestIdleConnectionsToStrangersAreClosed(t *testing.T) {
	testutil.LeakCheck(t)
	const period = 500 * time.Millisecond
	g := newGate()
	b := p2ptest.New(t, g)
	a := knower(t, g, b, nobodyTrusted, func(o *p2p.Options) { o.Timing.Stranger = period })
	began := time.Now()
	for time.Since(began) < 4*period {
		callNode(t, a, b.Node())
		if p := a.Peers(); len(p) != 1 || p[0].Since.After(began.Add(period)) {
			t.Fatalf("connected anew while in use: %+v", p)
		}
		<-time.After(10 * time.Millisecond)
	}
	got := make(chan error, 1)
	go func() {
		_, _, err := a.Request(t.Context(), b.Node(), p2ptest.Open(wire.Kind_KIND_CALL), []byte("hold x"))
		got <- err
	}()
	recv(t, g.entered, "call")
	<-time.After(3 * period)
	g.release("x")
	if err := recv(t, got, "answer"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection to be closed", func() bool { return len(a.Peers()) == 0 })
	a.Protect(b.Node(), "test") // as good as trusted
	eventually(t, "the connection", func() bool { return len(a.Peers()) == 1 })
	since := a.Peers()[0].Since
	<-time.After(3 * period)
	if p := a.Peers(); len(p) != 1 || !p[0].Since.Equal(since) {
		t.Error("the connection to a protected node was closed")
	}
}

// Who is trusted no more has a stranger's place, which a contact takes, however busy
// it is.
func TestTrustThatEnds(t *testing.T) {
	overEach(t, func(t *testing.T, only p2ptest.Option, listen string) {
		var c circle
		g := newGate()
		h := p2ptest.New(t, g, only, c.trusts, func(o *p2p.Options) {
			o.MaxConnections, o.Timing.Stranger = 1, 20*time.Millisecond
		})
		raw := rawHost(t, listen)
		c.add(rawID(t, raw))
		rawConnect(t, raw, h)
		newRawRequests(t, raw, h).send(openFrom("a"), []byte("hold x"))
		recv(t, g.entered, "call")
		friend := knower(t, p2ptest.ServeFunc(p2ptest.Echo), h, only)
		c.add(friend.Node())
		if _, _, err := friend.Request(t.Context(), h.Node(), p2ptest.Open(wire.Kind_KIND_CALL), []byte("hello")); err == nil || !isConnected(raw, h) {
			t.Fatalf("one who is trusted lost its place: %v", err)
		}
		c.remove(rawID(t, raw))
		eventually(t, "the friend to be served", func() bool {
			_, _, err := friend.Request(t.Context(), h.Node(), p2ptest.Open(wire.Kind_KIND_CALL), []byte("hello"))
			return err == nil
		})
		eventually(t, "the other one to be sent away", func() bool { return !isConnected(raw, h) })
		g.release("x")
	})
}

// One stranger has at most two connections.
func TestStrangersHaveFewConnections(t *testing.T) {
	testutil.LeakCheck(t)
	h := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), nobodyTrusted, func(o *p2p.Options) { o.Timing.Stranger = time.Hour })
	key := p2ptest.Key(t)
	for range 4 {
		raw, done, err := p2ptest.RawHost(key, rawListen["tcp"])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = done() })
		_ = raw.Connect(timeout(t, 5*time.Second), addrInfo(h))
	}
	eventually(t, "two connections", func() bool { return h.Connections() == 2 })
}

// Strangers behind one address share 32 connections; contacts there do not.
func TestStrangersOfOneAddress(t *testing.T) {
	if !inNetns(t) {
		return
	}
	testutil.LeakCheck(t)
	for _, addr := range []string{"2.9.9.1/32", "2.9.9.2/32"} {
		ip(t, "addr", "add", addr, "dev", "lo")
	}
	var c circle
	at := func(addr string) p2ptest.Option { return func(o *p2p.Options) { o.Listen = []string{addr} } }
	h := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), at("2.9.9.1"), p2ptest.QUICOnly, c.trusts)
	for range 40 {
		k := knower(t, p2ptest.ServeFunc(p2ptest.Echo), h, p2ptest.QUICOnly, at("2.9.9.2"))
		callNode(t, k, h.Node())
	}
	eventually(t, "32 connections", func() bool { return h.Connections() == 32 })
	for i := range 3 {
		f := knower(t, p2ptest.ServeFunc(p2ptest.Echo), h, p2ptest.QUICOnly, at("2.9.9.2"))
		c.add(f.Node())
		callNode(t, f, h.Node())
		if n := h.Connections(); n != 33+i {
			t.Errorf("%d connections", n)
		}
	}
}
