package p2p_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
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

func openFrom(sender string) *wire.Frame {
	f := p2ptest.Open(wire.Kind_KIND_CALL)
	f.GetOpen().From = []byte(sender)
	return f
}

// padded is a payload of size bytes that begins with text.
func padded(text string, size int) []byte {
	return append([]byte(text), make([]byte, size-len(text))...)
}

const megabyte = 1<<20 - 4096 // the largest payload

// One user's calls that are not answered hold up nobody else's on the same two
// machines, nor can they take the place that others need.
func TestSlowCallsDelayNobodyElse(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		g := newGate()
		a, b := p2ptest.NewPairOf(t, g, g, only)
		ctx, cancel := context.WithCancel(t.Context())
		var slow sync.WaitGroup
		defer slow.Wait()
		defer cancel()
		for i := range 140 {
			size := 1 << 10
			if i < 40 {
				size = megabyte
			}
			slow.Go(func() { _, _, _ = a.Request(ctx, b.Node(), openFrom("alice"), padded("hold x", size)) })
		}
		for range 100 {
			recv(t, g.entered, "request")
		}
		for i, size := range []int{10, megabyte, 10} {
			began := time.Now()
			r, _, err := a.Request(timeout(t, 10*time.Second), b.Node(), openFrom("bob"), make([]byte, size))
			if err != nil || r.Err() != nil {
				t.Fatalf("call %d of another user: %v, %v", i, err, r.Err())
			}
			if d := time.Since(began); d > 2*time.Second {
				t.Errorf("call %d of another user took %v", i, d)
			}
		}
	})
}

// A burst of large calls is paced by the side that sends, not refused.
func TestBurstsOfLargeCallsSucceed(t *testing.T) {
	testutil.LeakCheck(t)
	slow := p2ptest.ServeFunc(func(_ context.Context, _ p2p.Peer, _ *wire.Frame, payload []byte, _ func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
		<-time.After(20 * time.Millisecond) // so that those not paced would pile up
		return &wire.Reply{}, payload
	})
	a, b := p2ptest.NewPairOf(t, slow, slow)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			r, got, err := a.Request(timeout(t, 60*time.Second), b.Node(), openFrom("alice"), make([]byte, megabyte))
			if err != nil || r.Err() != nil || len(got) != megabyte {
				t.Errorf("call %d: %v, %v", i, err, r.Err())
			}
		})
	}
	wg.Wait()
}

// rawRequests is a request stream on which a test says what it likes.
type rawRequests struct {
	t *testing.T
	s network.Stream
	r *bufio.Reader
	n uint64
}

func newRawRequests(t *testing.T, raw host.Host, h *p2p.Host) *rawRequests {
	s := rawStream(t, raw, h)
	return &rawRequests{t: t, s: s, r: bufio.NewReader(s)}
}

func (r *rawRequests) send(f *wire.Frame, payload []byte) uint64 {
	r.t.Helper()
	r.n++
	f.Number = r.n
	_ = r.s.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := r.s.Write(frameBytes(r.t, f, payload)); err != nil {
		r.t.Fatalf("the request stream is not read: %v", err)
	}
	return r.n
}

// answer reads one answer and returns the code that it carries.
func (r *rawRequests) answer() (uint64, api.Code) {
	r.t.Helper()
	_ = r.s.SetReadDeadline(time.Now().Add(10 * time.Second))
	f, _, err := wire.ReadFrame(r.r, nil, nil)
	if err != nil {
		r.t.Fatalf("no answer: %v", err)
	}
	return f.Number, api.Code(f.GetReply().GetCode())
}

func (r *rawRequests) wantAnswer(number uint64, code api.Code) {
	r.t.Helper()
	if n, c := r.answer(); n != number || c != code {
		r.t.Fatalf("answer to %d: %q, want one to %d: %q", n, c, number, code)
	}
}

// What is over the budget is refused at once and the stream is read on: other
// senders go on, and a Cancel is heard.
func TestOverBudgetIsAnsweredAtOnce(t *testing.T) {
	for name, c := range map[string]struct{ requests, size, fits int }{
		"payloads": {requests: 0, size: megabyte, fits: 16},
		"requests": {requests: 4, size: 10, fits: 4},
	} {
		for transport, listen := range map[string]string{"quic": "/ip4/127.0.0.1/udp/0/quic-v1", "tcp": "/ip4/127.0.0.1/tcp/0"} {
			t.Run(name+" "+transport, func(t *testing.T) {
				testutil.LeakCheck(t)
				g := newGate()
				h := p2ptest.New(t, g, func(o *p2p.Options) {
					o.QUIC, o.TCP, o.Timing.RequestCap = transport == "quic", transport == "tcp", c.requests
				})
				raw := rawHost(t, listen)
				rawConnect(t, raw, h)
				s := newRawRequests(t, raw, h)
				for i := range c.fits {
					s.send(openFrom("alice"), padded(fmt.Sprintf("hold %d", i), c.size))
				}
				for range c.fits {
					recv(t, g.entered, "request")
				}
				for range 3 {
					s.wantAnswer(s.send(openFrom("alice"), make([]byte, c.size)), api.CodeOverBudget)
				}
				if c.requests == 0 { // for a count the sender does not matter
					s.wantAnswer(s.send(openFrom("bob"), make([]byte, c.size)), "")
				}
				cancel := &wire.Frame{Number: 1, Body: &wire.Frame_Cancel{Cancel: &wire.Cancel{}}}
				if _, err := s.s.Write(frameBytes(t, cancel, nil)); err != nil {
					t.Fatal(err)
				}
				if err := recv(t, g.ended, "end of the cancelled call"); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				s.wantAnswer(1, api.CodeCancelled)
				s.wantAnswer(s.send(openFrom("alice"), make([]byte, c.size)), "")
			})
		}
	}
}

// A peer that is refused again and again and never reads is given up, before
// the refusals fill the memory.
func TestRefusalsThatNobodyReadsAreBounded(t *testing.T) {
	testutil.LeakCheck(t)
	g := newGate()
	h := p2ptest.New(t, g, p2ptest.QUICOnly, func(o *p2p.Options) { o.Timing.RequestCap = 1 })
	raw := rawHost(t, "/ip4/127.0.0.1/udp/0/quic-v1")
	rawConnect(t, raw, h)
	s := newRawRequests(t, raw, h)
	s.send(openFrom("alice"), []byte("hold x"))
	recv(t, g.entered, "request")
	var batch []byte
	for range 1000 {
		s.n++
		f := openFrom("alice")
		f.Number = s.n
		batch = append(batch, frameBytes(t, f, nil)...)
	}
	_ = s.s.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for range 500 { // some 100 MB of refusals
		if _, err := s.s.Write(batch); err != nil {
			var se *network.StreamError
			if !errors.As(err, &se) || p2p.FromResetCode(se.ErrorCode) != api.CodeOverBudget {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("half a million refusals were kept for a peer that reads none")
}

// big answers each request, but "hello", with a megabyte, and tells so.
func big(served chan<- bool) p2p.Server {
	return p2ptest.ServeFunc(func(_ context.Context, _ p2p.Peer, _ *wire.Frame, payload []byte, _ func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
		if string(payload) == "hello" {
			return &wire.Reply{}, nil
		}
		defer func() { served <- true }()
		return &wire.Reply{}, make([]byte, megabyte)
	})
}

// Answers that a peer does not read count against what it may ask.
func TestUnreadAnswersAreHeld(t *testing.T) {
	testutil.LeakCheck(t)
	served := make(chan bool, 64)
	h := p2ptest.New(t, big(served), p2ptest.TCPOnly)
	raw := rawHost(t, rawListen["tcp"])
	rawConnect(t, raw, h)
	unread, other := newRawRequests(t, raw, h), newRawRequests(t, raw, h)
	const n = 40
	for range n {
		unread.send(openFrom("alice"), nil)
	}
	// Those beyond her share are refused without being served.
	eventually(t, "over_budget for her who reads nothing", func() bool {
		other.send(openFrom("alice"), []byte("hello"))
		_, code := other.answer()
		return code == api.CodeOverBudget
	})
	other.wantAnswer(other.send(openFrom("bob"), []byte("hello")), "")
	for range n {
		unread.answer()
	}
	eventually(t, "her turn again", func() bool {
		other.send(openFrom("alice"), []byte("hello"))
		_, code := other.answer()
		return code == ""
	})
}

// What was asked before the answers were known to be so long is bounded, too.
func TestTooManyUnreadAnswersAreDropped(t *testing.T) {
	testutil.LeakCheck(t)
	g := newGate()
	serve := p2ptest.ServeFunc(func(ctx context.Context, p p2p.Peer, f *wire.Frame, payload []byte, accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
		_, _ = g.ServeFrame(ctx, p, f, payload, accept)
		return &wire.Reply{}, make([]byte, megabyte)
	})
	h := p2ptest.New(t, serve, p2ptest.TCPOnly, nobodyTrusted)
	raw := rawHost(t, rawListen["tcp"])
	rawConnect(t, raw, h)
	s := newRawRequests(t, raw, h)
	const n = 64
	for range n {
		s.send(openFrom("alice"), []byte("hold x"))
	}
	for range n {
		recv(t, g.entered, "request")
	}
	g.release("x")
	<-time.After(100 * time.Millisecond) // all answers are there, and none is read
	dropped := 0
	for range n {
		if _, code := s.answer(); code == api.CodeOutcomeUnknown {
			dropped++
		} else if code != "" {
			t.Fatal(code)
		}
	}
	if dropped < n-24 || dropped > n-16 {
		t.Errorf("%d of %d answers were dropped, want all but some 16", dropped, n)
	}
	s.wantAnswer(s.send(openFrom("alice"), nil), "")
}
