// Package p2ptest makes hosts for the tests of this and other packages: real
// libp2p, on loopback, in one process.
package p2ptest

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
)

// Option changes the options of a host that a test makes.
type Option func(*p2p.Options)

// TCPOnly leaves QUIC out.
func TCPOnly(o *p2p.Options) { o.QUIC, o.TCP = false, true }

// QUICOnly leaves TCP out.
func QUICOnly(o *p2p.Options) { o.QUIC, o.TCP = true, false }

// ServeFunc makes a function a p2p.Server.
type ServeFunc func(ctx context.Context, from p2p.Peer, f *wire.Frame, payload []byte,
	accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte)

func (s ServeFunc) ServeFrame(ctx context.Context, from p2p.Peer, f *wire.Frame, payload []byte,
	accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
	return s(ctx, from, f, payload, accept)
}

// Echo answers every request with its payload, and every stream with its bytes.
func Echo(_ context.Context, _ p2p.Peer, _ *wire.Frame, payload []byte, accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
	conn, err := accept(&wire.Reply{})
	if err != nil {
		return &wire.Reply{}, payload
	}
	defer conn.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if _, err := conn.Write(buf[:n]); err != nil {
				return nil, nil
			}
		}
		if err != nil {
			_ = conn.CloseWrite()
			return nil, nil
		}
	}
}

// Key makes a node key.
func Key(t testing.TB) identity.Key {
	t.Helper()
	k, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// New starts a host on loopback, with a book of its own, and closes it with t.
func New(t testing.TB, s p2p.Server, opts ...Option) *p2p.Host {
	t.Helper()
	o := p2p.Options{Key: Key(t), Listen: []string{"127.0.0.1"}, QUIC: true, TCP: true, Book: NewBook()}
	o.Timing.Drain = 100 * time.Millisecond // the other ends of many tests never answer
	for _, opt := range opts {
		opt(&o)
	}
	h, err := p2p.New(o, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close the host: %v", err)
		}
	})
	return h
}

// NewPair starts two hosts that answer with Echo and know each other's
// addresses. They are not connected yet.
func NewPair(t testing.TB, opts ...Option) (a, b *p2p.Host) {
	t.Helper()
	return NewPairOf(t, ServeFunc(Echo), ServeFunc(Echo), opts...)
}

// NewPairOf is NewPair with servers of the test's own.
func NewPairOf(t testing.TB, sa, sb p2p.Server, opts ...Option) (a, b *p2p.Host) {
	t.Helper()
	book := NewBook()
	with := append([]Option{func(o *p2p.Options) { o.Book = book }}, opts...)
	a, b = New(t, sa, with...), New(t, sb, with...)
	book.Add(a.Node(), a.Addrs()...)
	book.Add(b.Node(), b.Addrs()...)
	return a, b
}

// Book is an address book in memory that stores what it learns of anyone.
type Book struct {
	mu      sync.Mutex
	addrs   map[identity.ID][]string
	learned map[identity.ID][]string
	changed chan struct{} // closed and replaced when something is learned
}

// NewBook makes an empty Book.
func NewBook() *Book {
	return &Book{addrs: make(map[identity.ID][]string), learned: make(map[identity.ID][]string), changed: make(chan struct{})}
}

// Add makes addresses known, beside those that are.
func (b *Book) Add(node identity.ID, addrs ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addrs[node] = append(b.addrs[node], addrs...)
}

// Addresses gives what was added.
func (b *Book) Addresses(node identity.ID) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addrs[node]
}

// Learned stores addrs where WaitLearned finds them.
func (b *Book) Learned(node identity.ID, addrs []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.learned = maps.Clone(b.learned)
	b.learned[node] = addrs
	close(b.changed)
	b.changed = make(chan struct{})
}

// WaitLearned waits until something was learned of node.
func (b *Book) WaitLearned(t testing.TB, node identity.ID) []string {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		b.mu.Lock()
		addrs, ok := b.learned[node]
		changed := b.changed
		b.mu.Unlock()
		if ok {
			return addrs
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("nothing was learned of node %s", node.Short())
		}
	}
}

// Open makes an Open frame that passes validation.
func Open(kind wire.Kind) *wire.Frame {
	return &wire.Frame{Body: &wire.Frame_Open{Open: &wire.Open{
		From: []byte("delegation"), To: make([]byte, 32), Protocol: "Echo", Instance: "default", Kind: kind}}}
}
