package p2p_test

import (
	"encoding/binary"
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

// Anybody here can ask for nodes that never connect; they are not remembered
// for ever, those in use are.
func TestNodesThatNeverConnectAreForgotten(t *testing.T) {
	testutil.LeakCheck(t)
	a, b := p2ptest.NewPair(t)
	callNode(t, a, b.Node())
	kept := p2ptest.Key(t).ID()
	a.Protect(kept, "test")
	since := a.Peers()[0].Since
	for i := range uint32(6000) {
		var id identity.ID
		copy(id[:], kept[:])
		binary.BigEndian.PutUint32(id[:], i)
		_, _, err := a.Request(t.Context(), id, p2ptest.Open(wire.Kind_KIND_CALL), nil)
		wantCode(t, err, api.CodePeerUnreachable)
	}
	if n := a.Nodes(); n > 4096 {
		t.Errorf("%d nodes are remembered", n)
	}
	callNode(t, a, b.Node())
	if p := a.Peers(); len(p) != 1 || !p[0].Since.Equal(since) {
		t.Error("a node in use was forgotten")
	}
	if !a.Sought(kept) {
		t.Error("a protected node was forgotten")
	}
}

// It is told why a node is not connected, until it is.
func TestWhyNot(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		book := p2ptest.NewBook()
		a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) {
			o.Book, o.Timing.Dial, o.Timing.DialAgain = book, 300*time.Millisecond, time.Millisecond
		})
		key, port := p2ptest.Key(t), 0
		start := func() *p2p.Host {
			return p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) { o.Key, o.Port = key, port })
		}
		want := func(part string) {
			t.Helper()
			if got := a.WhyNot(key.ID()); (got == "") != (part == "") || !strings.Contains(got, part) {
				t.Errorf("why not: %q, want %q", got, part)
			}
		}
		fails := func() {
			t.Helper()
			_, _, err := a.Request(t.Context(), key.ID(), p2ptest.Open(wire.Kind_KIND_CALL), nil)
			wantCode(t, err, api.CodePeerUnreachable)
		}
		want("")
		fails()
		want("no address of node")
		b := start()
		port = portOf(t, b)
		book.Add(b.Node(), b.Addrs()...)
		callNode(t, a, b.Node())
		want("")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the connection to be noticed as lost", func() bool { return len(a.Peers()) == 0 })
		want("")
		fails()
		want("/ip4/127.0.0.1/")
		start()
		callNode(t, a, b.Node())
		want("")
	})
}
