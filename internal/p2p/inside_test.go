package p2p

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/wire"
)

// writes is a stream that tells when something is written.
type writes struct {
	network.Stream
	told func()
}

func (w writes) Write(p []byte) (int, error) {
	w.told()
	return len(p), nil
}

// Whoever has an answer may send the next request: the place is free by then.
func TestPlaceIsFreeOnceAnswered(t *testing.T) {
	c := new(connState)
	c.budget.init()
	if err := c.budget.take(limits{1, 100, 100, 100}, 1, 10); err != nil {
		t.Fatal(err)
	}
	h := &holding{c: c, place: true, bytes: 10, sender: 1}
	written := 0
	out := newFrameWriter(writes{told: func() {
		written++
		if c.budget.requests != 0 {
			t.Error("the request counts while it is being answered")
		}
		if c.budget.bytes != 10 {
			t.Error("the answer does not count while it is written")
		}
	}}, time.Second)
	if err := writeReply(t.Context(), out, 1, &wire.Reply{}, []byte("answer"), h); err != nil || written == 0 {
		t.Fatal(err, written)
	}
	h.release()
	if b := &c.budget; b.requests != 0 || b.bytes != 0 {
		t.Errorf("left: %d requests, %d bytes", b.requests, b.bytes)
	}
}

// What fails because this node stops is not the peer's fault.
func TestStoppingIsNotThePeersFault(t *testing.T) {
	key, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Options{Key: key, Listen: []string{"127.0.0.1"}, TCP: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := h.nodes.get(identity.ID{1})
	defer n.done()
	if e := n.unreachable("the dial was cancelled", nil); !strings.Contains(e.Hint, "its port") {
		t.Errorf("while it runs: %s (%s)", e.Message, e.Hint)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if e := n.unreachable("the dial was cancelled", nil); !strings.Contains(e.Message, "stopping") || strings.Contains(e.Hint, "port") {
		t.Errorf("%s (%s)", e.Message, e.Hint)
	}
}

func (w writes) SetWriteDeadline(time.Time) error { return nil }

// stuck is a connection that takes long to close.
type stuck struct {
	network.Conn
	closing, free chan struct{}
}

func (s stuck) Close() error {
	close(s.closing)
	<-s.free
	return nil
}

// When an address is lost the dials of other nodes do not wait until what depended
// on it is closed.
func TestLostAddressHoldsUpNoDial(t *testing.T) {
	key, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Options{Key: key, Listen: []string{"127.0.0.1"}, TCP: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn := stuck{closing: make(chan struct{}), free: make(chan struct{})}
	c := &connState{table: &h.conns, conn: conn, source: netip.MustParseAddr("2.9.9.9")}
	c.raw.init(c)
	c.ctx, c.cancel = context.WithCancel(h.ctx)
	h.conns.mu.Lock()
	h.conns.conns[conn] = c
	h.conns.mu.Unlock()
	other := h.nodes.get(identity.ID{1})
	defer other.done()
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		h.networkChanged(links{}, nil, nil)
	}()
	<-conn.closing
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Error("it waits for the close")
	}
	if !other.takeUrgent() {
		t.Error("another node's pause has not ended")
	}
	close(conn.free)
	<-changed
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}

// waiting is a stream that is looked into.
type waiting struct {
	network.Stream
	data  bool
	looks *atomic.Int64
}

func (w waiting) SetReadDeadline(time.Time) error { return nil }

func (w waiting) Read(p []byte) (int, error) {
	w.looks.Add(1)
	if w.data {
		return 1, nil
	}
	return 0, os.ErrDeadlineExceeded
}

// However many streams there are, few are looked into to tell how many are unread.
func TestFewLooksAreEnough(t *testing.T) {
	for _, c := range []struct{ idle, unread, silent, least, most int }{
		{0, 0, 3, 3, 3}, {10, 4, 0, 4, 4}, {64, 64, 1, 65, 65}, {5000, 5000, 1, 5001, 5001}, {5000, 0, 0, 0, 0}, {5000, 2500, 0, 500, 4500},
	} {
		var looks atomic.Int64
		s := hoarder{silent: c.silent}
		for i := range c.idle {
			s.idle = append(s.idle, &rawStream{s: waiting{data: i < c.unread, looks: &looks}})
		}
		if n := s.unread(); n < c.least || n > c.most || looks.Load() > looksPerConn {
			t.Errorf("%+v: %d are unread, by %d looks", c, n, looks.Load())
		}
	}
}
