package p2p_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// circle is the nodes that a host trusts.
type circle struct{ nodes sync.Map }

func (c *circle) add(id identity.ID)      { c.nodes.Store(id, true) }
func (c *circle) remove(id identity.ID)   { c.nodes.Delete(id) }
func (c *circle) trusts(o *p2p.Options)   { o.Trusted = c.has }
func (c *circle) has(id identity.ID) bool { _, ok := c.nodes.Load(id); return ok }
func nobodyTrusted(o *p2p.Options)        { o.Trusted = func(identity.ID) bool { return false } }
func overEach(t *testing.T, f func(t *testing.T, only p2ptest.Option, listen string)) {
	t.Run("quic", func(t *testing.T) { testutil.LeakCheck(t); f(t, p2ptest.QUICOnly, rawListen["quic"]) })
	t.Run("tcp", func(t *testing.T) { testutil.LeakCheck(t); f(t, p2ptest.TCPOnly, rawListen["tcp"]) })
}

// prelude is how a stream begins that is for our protocol.
const prelude = "\x13/multistream/1.0.0\n\x0d/fastn/1.0.0\n"

// rawAccepted opens a stream with the host and tells whether it was accepted.
// It lasts until CloseWrite.
func rawAccepted(t *testing.T, raw host.Host, h *p2p.Host) (network.Stream, error) {
	t.Helper()
	s, err := raw.Network().NewStream(t.Context(), h.Node().PeerID())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := s.Write(append([]byte(prelude), frameBytes(t, p2ptest.Open(wire.Kind_KIND_STREAM), nil)...)); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(s, make([]byte, len(prelude)+1)) // and the reply's first byte
	return s, err
}

func TestStrangersHaveFewStreams(t *testing.T) {
	overEach(t, func(t *testing.T, only p2ptest.Option, listen string) {
		var c circle
		h := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, c.trusts)
		raw := rawHost(t, listen)
		rawConnect(t, raw, h)
		var last network.Stream
		for i := range 32 {
			s, err := rawAccepted(t, raw, h)
			if err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
			last = s
		}
		if _, err := rawAccepted(t, raw, h); err == nil {
			t.Fatal("a stranger has 33 streams")
		}
		_ = last.CloseWrite()
		eventually(t, "the place of a stream that ended", func() bool {
			_, err := rawAccepted(t, raw, h)
			return err == nil
		})
		c.add(rawID(t, raw)) // it redeemed a ticket
		for i := range 40 {
			if _, err := rawAccepted(t, raw, h); err != nil {
				t.Fatalf("stream %d of one that is trusted now: %v", i, err)
			}
		}
	})
}

// A stranger's requests are served, but few at a time, and hold little.
func TestStrangersHaveFewRequests(t *testing.T) {
	overEach(t, func(t *testing.T, only p2ptest.Option, listen string) {
		g := newGate()
		h := p2ptest.New(t, g, only, nobodyTrusted)
		raw := rawHost(t, listen)
		rawConnect(t, raw, h)
		s := newRawRequests(t, raw, h)
		s.wantAnswer(s.send(openFrom("a"), make([]byte, megabyte)), "")
		for i := range 2 {
			s.send(openFrom(fmt.Sprint("identity ", i)), padded("hold x", megabyte))
			recv(t, g.entered, "request")
		}
		s.wantAnswer(s.send(openFrom("one more identity"), make([]byte, megabyte)), api.CodeOverBudget)
		for range 62 {
			s.send(openFrom("a"), []byte("hold y"))
			recv(t, g.entered, "request")
		}
		s.wantAnswer(s.send(openFrom("a"), nil), api.CodeOverBudget)
		g.release("y")
		for range 62 {
			if _, code := s.answer(); code != "" {
				t.Fatal(code)
			}
		}
		s.wantAnswer(s.send(openFrom("a"), nil), "")
	})
}

// All strangers at one address have a quarter of a share of the memory, however
// many they are: others are still served.
func TestStrangersShareOneBudget(t *testing.T) {
	overEach(t, func(t *testing.T, only p2ptest.Option, listen string) {
		var c circle
		h := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, c.trusts, func(o *p2p.Options) {
			o.MemoryLimit, o.Listen = 16<<20, []string{"127.0.0.1", "::1"}
		})
		elsewhere := rawHost(t, strings.Replace(listen, "/ip4/127.0.0.1", "/ip6/::1", 1))
		addrs := addrInfo(h)
		addrs.Addrs = slices.DeleteFunc(addrs.Addrs, func(m ma.Multiaddr) bool { return !strings.Contains(m.String(), "::1") })
		if err := elsewhere.Connect(t.Context(), addrs); err != nil {
			t.Fatal(err)
		}
		refused := make(chan bool, 48)
		var streams []network.Stream
		var all sync.WaitGroup
		for range 6 {
			raw := rawHost(t, listen)
			addrs := addrInfo(h)
			addrs.Addrs = slices.DeleteFunc(addrs.Addrs, func(m ma.Multiaddr) bool { return strings.Contains(m.String(), "::1") })
			if err := raw.Connect(t.Context(), addrs); err != nil {
				t.Fatal(err)
			}
			for range 8 {
				s, err := raw.Network().NewStream(t.Context(), h.Node().PeerID())
				if err != nil {
					t.Fatal(err)
				}
				streams = append(streams, s)
				all.Go(func() {
					_, _ = s.Write([]byte("\x13"))
					_, _ = io.Copy(io.Discard, s)
					refused <- true
				})
			}
		}
		// Those that are kept are given up by libp2p after 10 s.
		for late := time.After(8 * time.Second); len(refused) < 48-4; {
			select {
			case <-late:
				t.Fatalf("%d streams of strangers at one address are open, want at most 4", 48-len(refused))
			case <-time.After(10 * time.Millisecond):
			}
		}
		if len(refused) > 48-4 {
			t.Error("fewer than 4 streams of strangers may be open")
		}
		if _, err := rawAccepted(t, elsewhere, h); err != nil {
			t.Errorf("one host shuts out a stranger at another address: %v", err)
		}
		for _, s := range streams {
			_ = s.Reset()
		}
		all.Wait()
	})
}

// Whoever has many addresses cannot shut out others either: the oldest stream of
// the address that has most gives way to one from elsewhere.
func TestStrangersAtManyAddresses(t *testing.T) {
	overEach(t, func(t *testing.T, only p2ptest.Option, _ string) {
		var c circle
		h := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, c.trusts, func(o *p2p.Options) { o.MemoryLimit = 16 << 20 })
		at := func(i int) host.Host {
			raw, done, err := p2ptest.RawHostFrom(p2ptest.Key(t), net.IPv4(127, 0, 0, byte(i)))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = done() })
			rawConnect(t, raw, h)
			return raw
		}
		ended := make([]chan struct{}, 0, 16)
		for i := range 4 {
			raw := at(2 + i)
			for range 4 { // what one address may have; together, all that there is
				s, err := raw.Network().NewStream(t.Context(), h.Node().PeerID())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Reset() })
				if _, err := s.Write([]byte("\x13")); err != nil {
					t.Fatal(err)
				}
				end := make(chan struct{})
				go func() {
					defer close(end)
					_, _ = io.Copy(io.Discard, s)
				}()
				ended = append(ended, end)
				eventually(t, "the stream", func() bool { return h.Unproven() == len(ended) })
			}
		}
		s, err := rawAccepted(t, at(9), h)
		if err != nil {
			t.Fatalf("four addresses shut out all others: %v", err)
		}
		recv(t, ended[0], "end of the oldest")
		select {
		case <-ended[15]:
			t.Error("the newest stream was reset")
		default:
		}
		_ = s.Reset()
	})
}

// Streams of one direction, which nobody would ever read, cannot be opened.
func TestNoStreamsOfOneDirection(t *testing.T) {
	testutil.LeakCheck(t)
	h := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), p2ptest.QUICOnly)
	raw := rawHost(t, rawListen["quic"])
	rawConnect(t, raw, h)
	var conn *quic.Conn
	if !raw.Network().ConnsToPeer(h.Node().PeerID())[0].As(&conn) {
		t.Fatal("no QUIC connection")
	}
	if _, err := conn.OpenUniStream(); err == nil {
		t.Error("a stream of one direction was opened")
	}
}

func TestStrangersStalledStreamsAreResetSooner(t *testing.T) {
	overEach(t, func(t *testing.T, only p2ptest.Option, _ string) {
		acc := newAccepter(t)
		a, b := p2ptest.NewPairOf(t, acc, acc, only, nobodyTrusted, smallWindows, func(o *p2p.Options) { o.Timing.Stalled = 50 * time.Millisecond })
		near, _ := stall(t, a, b, acc, 6, stallWindow)
		for i := range 2 {
			_, err := near[i].Read(make([]byte, 1))
			wantCode(t, err, api.CodeStalled)
		}
	})
}
