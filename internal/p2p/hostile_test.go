package p2p_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// hostile connects a raw host to one of ours, over each transport.
func hostile(t *testing.T, opt p2ptest.Option, f func(t *testing.T, raw host.Host, h *p2p.Host)) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		h := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, opt)
		raw := rawHost(t, "/ip4/127.0.0.1/tcp/0")
		rawConnect(t, raw, h)
		f(t, raw, h)
	})
}

func rawStream(t *testing.T, raw host.Host, h *p2p.Host) network.Stream {
	t.Helper()
	s, err := raw.NewStream(timeout(t, 10*time.Second), h.Node().PeerID(), p2p.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	return s
}

// frameBytes is a frame as it goes over the wire.
func frameBytes(t testing.TB, f *wire.Frame, payload []byte) []byte {
	t.Helper()
	f.PayloadSize = uint32(len(payload))
	b, err := proto.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(binary.AppendUvarint(nil, uint64(len(b))), b...), payload...)
}

func callBytes(t testing.TB, number uint64, payload string) []byte {
	f := p2ptest.Open(wire.Kind_KIND_CALL)
	f.Number = number
	return frameBytes(t, f, []byte(payload))
}

// answerOn writes one good call and reads its answer.
func answerOn(t *testing.T, s network.Stream, number uint64) {
	t.Helper()
	if _, err := s.Write(callBytes(t, number, "hello")); err != nil {
		t.Fatal(err)
	}
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	f, p, err := wire.ReadFrame(bufio.NewReader(s), nil, nil)
	if err != nil || f.Number != number || f.GetReply() == nil || string(p) != "hello" {
		t.Fatalf("answer %v, %q, %v", f, p, err)
	}
}

// wantReset reads until the stream is reset and compares the code.
func wantReset(t *testing.T, s network.Stream, code api.Code) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := io.Copy(io.Discard, s)
	var se *network.StreamError
	if !errors.As(err, &se) || !se.Remote {
		t.Fatalf("the stream ended with %v, want a reset by the other side", err)
	}
	if got := p2p.FromResetCode(se.ErrorCode); got != code {
		t.Fatalf("reset with %s, want %s", got, code)
	}
}

func TestGarbageClosesOnlyItsStream(t *testing.T) {
	open := func(change func(*wire.Open)) []byte {
		f := p2ptest.Open(wire.Kind_KIND_CALL)
		change(f.GetOpen())
		return frameBytes(t, f, nil)
	}
	huge := p2ptest.Open(wire.Kind_KIND_CALL)
	huge.PayloadSize = 1 << 30
	hugeHeader, err := proto.Marshal(huge)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		bytes []byte
		code  api.Code
	}{
		"not protobuf":       {[]byte("\x05\xff\xff\xff\xff\xff"), api.CodeBadRequest},
		"empty frame":        {[]byte{0}, api.CodeBadRequest},
		"overlong length":    {[]byte{0x80, 0x00}, api.CodeBadRequest},
		"huge header":        {[]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, api.CodeTooLarge},
		"huge payload":       {append([]byte{byte(len(hugeHeader))}, hugeHeader...), api.CodeTooLarge},
		"short key":          {open(func(o *wire.Open) { o.To = o.To[:31] }), api.CodeBadRequest},
		"no kind":            {open(func(o *wire.Open) { o.Kind = 0 }), api.CodeBadRequest},
		"newline in a name":  {open(func(o *wire.Open) { o.Protocol = "a\nFASTN_X=1" }), api.CodeBadRequest},
		"a reply":            {frameBytes(t, &wire.Frame{Body: &wire.Frame_Reply{Reply: &wire.Reply{}}}, nil), api.CodeBadRequest},
		"number used twice":  {append(callBytes(t, 1, "hold x"), callBytes(t, 1, "hold x")...), api.CodeBadRequest},
		"stream among calls": {append(callBytes(t, 1, "hold x"), frameBytes(t, p2ptest.Open(wire.Kind_KIND_STREAM), nil)...), api.CodeBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			g := newGate()
			h := p2ptest.New(t, g, p2ptest.QUICOnly)
			raw := rawHost(t, "/ip4/127.0.0.1/udp/0/quic-v1")
			rawConnect(t, raw, h)
			good := rawStream(t, raw, h)
			answerOn(t, good, 1)
			bad := rawStream(t, raw, h)
			if _, err := bad.Write(c.bytes); err != nil {
				t.Fatal(err)
			}
			wantReset(t, bad, c.code)
			answerOn(t, good, 2)
		})
	}
}

func TestDribbledFramesAreCut(t *testing.T) {
	quick := func(o *p2p.Options) { o.Timing.Header = 200 * time.Millisecond }
	whole := callBytes(t, 1, string(make([]byte, 100)))
	for name, part := range map[string]int{
		"nothing at all": 0, "half of a length": 1, "half of a header": 20, "half of a payload": len(whole) - 50,
	} {
		t.Run(name, func(t *testing.T) {
			hostile(t, quick, func(t *testing.T, raw host.Host, h *p2p.Host) {
				good := rawStream(t, raw, h)
				answerOn(t, good, 1)
				s := rawStream(t, raw, h)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_, _ = s.Write(whole[:part]) // the lazy negotiation goes with it
				go func() {                  // a byte now and then must not help
					for i := part; part > 1 && i < part+20; i++ {
						select {
						case <-ctx.Done():
							return
						case <-time.After(60 * time.Millisecond):
							_, _ = s.Write(whole[i : i+1])
						}
					}
				}()
				wantReset(t, s, api.CodeTimeout)
				// An idle request stream stays, though it was silent as long.
				answerOn(t, good, 2)
			})
		})
	}
}

// A frame that came in pieces leaves no deadline behind.
func TestIdleAfterASlowFrame(t *testing.T) {
	const limit = 100 * time.Millisecond
	hostile(t, func(o *p2p.Options) { o.Timing.Header = limit }, func(t *testing.T, raw host.Host, h *p2p.Host) {
		s := rawStream(t, raw, h)
		answerOn(t, s, 1)
		b := callBytes(t, 2, "hello")
		for _, part := range [][]byte{b[:10], b[10:]} {
			if _, err := s.Write(part); err != nil {
				t.Fatal(err)
			}
			<-time.After(limit / 3) // so that the parts are read apart
		}
		if f, _, err := wire.ReadFrame(bufio.NewReader(s), nil, nil); err != nil || f.Number != 2 {
			t.Fatal(f, err)
		}
		<-time.After(2 * limit) // the time is what is tested
		answerOn(t, s, 3)
	})
}

func TestTooManyRequestStreams(t *testing.T) {
	hostile(t, func(*p2p.Options) {}, func(t *testing.T, raw host.Host, h *p2p.Host) {
		var list []network.Stream
		for range 8 {
			s := rawStream(t, raw, h)
			answerOn(t, s, 1)
			list = append(list, s)
		}
		s := rawStream(t, raw, h)
		if _, err := s.Write(callBytes(t, 1, "x")); err != nil {
			t.Fatal(err)
		}
		wantReset(t, s, api.CodeOverBudget)
		answerOn(t, list[0], 2)
	})
}

// A peer that answers with nonsense, or not at all, costs the caller no more
// than the call.
func TestHostileAnswers(t *testing.T) {
	for name, serve := range map[string]func(network.Stream){
		"garbage":     func(s network.Stream) { _, _ = s.Write([]byte("garbage")) },
		"end":         func(s network.Stream) { _ = s.Close() },
		"reset":       func(s network.Stream) { _ = s.Reset() },
		"a call back": func(s network.Stream) { _, _ = s.Write(callBytes(t, 1, "")) },
		"a dribble":   func(s network.Stream) { _, _ = s.Write([]byte{30, 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			book := p2ptest.NewBook()
			h := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), func(o *p2p.Options) {
				o.Book, o.Timing.Header = book, 100*time.Millisecond
			})
			raw := rawHost(t, "/ip4/127.0.0.1/tcp/0")
			raw.SetStreamHandler(p2p.Protocol, func(s network.Stream) {
				_, _ = s.Read(make([]byte, 10))
				serve(s)
			})
			book.Add(rawID(t, raw), fmt.Sprint(raw.Addrs()[0]))
			for range 2 {
				_, _, err := h.Request(timeout(t, 10*time.Second), rawID(t, raw), p2ptest.Open(wire.Kind_KIND_CALL), nil)
				wantCode(t, err, api.CodeOutcomeUnknown)
				_, _, _, err = h.OpenStream(timeout(t, 10*time.Second), rawID(t, raw), p2ptest.Open(wire.Kind_KIND_STREAM), nil)
				wantCode(t, err, api.CodeOutcomeUnknown)
			}
		})
	}
}
