package p2p_test

import (
	"context"
	"io"
	"testing"

	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// abortedOf waits until the other side's abort of c is known and gives its error.
func abortedOf(t *testing.T, c router.Conn) error {
	t.Helper()
	ctx := c.(router.Abortable).Aborted()
	recv(t, ctx.Done(), "word of the abort")
	return context.Cause(ctx)
}

// A side that ended its direction and then aborts is noticed by one that neither
// reads nor writes, whoever of them opened the stream.
func TestAbortAfterTheEndIsTold(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		acc := newAccepter(t)
		a, b := p2ptest.NewPairOf(t, acc, acc, only)
		others := openProto(t, a, b, "Hold") // with the same number, the other way
		othersFar := recv(t, acc.conns, "stream")
		back := openProto(t, b, a, "Hold")
		backFar := recv(t, acc.conns, "stream")
		for _, code := range []api.Code{api.CodeCancelled, api.CodeHandlerFailed} {
			for _, fromFar := range []bool{false, true} {
				near := openProto(t, a, b, "Hold")
				from, to := near, recv(t, acc.conns, "stream")
				if fromFar {
					from, to = to, from
				}
				if err := from.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(to); err != nil {
					t.Fatalf("a clean end reads as %v", err)
				}
				from.Reset(code)
				wantCode(t, abortedOf(t, to), code)
				_, err := to.Write([]byte("x"))
				wantCode(t, err, code)
			}
		}
		for _, p := range [][2]router.Conn{{others, othersFar}, {back, backFar}} {
			if _, err := p[0].Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(p[1], make([]byte, 1)); err != nil {
				t.Errorf("another stream was aborted: %v", err)
			}
		}
	})
}

// What a peer tells of streams that are not there, or are somebody else's, or
// with codes that describe this machine, changes nothing here.
func TestAbortsThatAreNone(t *testing.T) {
	overEach(t, func(t *testing.T, only p2ptest.Option, listen string) {
		acc := newAccepter(t)
		a, b := p2ptest.NewPairOf(t, acc, acc, only)
		near := openProto(t, a, b, "Hold")
		far := recv(t, acc.conns, "stream")
		raw := rawHost(t, listen)
		rawConnect(t, raw, b)
		own := rawStream(t, raw, b)
		open := p2ptest.Open(wire.Kind_KIND_STREAM)
		open.Number, open.GetOpen().Protocol = 7, "Hold"
		if _, err := own.Write(frameBytes(t, open, nil)); err != nil {
			t.Fatal(err)
		}
		ours := recv(t, acc.conns, "stream of the raw host")
		tell := func(number uint64, yours bool, code string) {
			t.Helper()
			s := rawStream(t, raw, b)
			f := &wire.Frame{Number: number, Body: &wire.Frame_Aborted{Aborted: &wire.Aborted{Code: code, Yours: yours}}}
			if _, err := s.Write(frameBytes(t, f, nil)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, s); err != nil {
				t.Errorf("abort of stream %d: %v", number, err)
			}
		}
		for number := range uint64(3) {
			tell(number, true, "cancelled")
			tell(number, false, "cancelled")
		}
		tell(7, true, "cancelled")
		for what, p := range map[string][2]io.ReadWriter{"of others": {near, far}, "that it did not mean": {own, ours}} {
			if _, err := p[0].Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(p[1], make([]byte, 1)); err != nil {
				t.Errorf("a node aborted a stream %s: %v", what, err)
			}
		}
		tell(7, false, "locked")
		wantCode(t, abortedOf(t, ours), api.CodeAborted)
		tell(7, false, "cancelled") // again

		mixed := rawStream(t, raw, b)
		f := &wire.Frame{Body: &wire.Frame_Aborted{Aborted: &wire.Aborted{Code: "cancelled"}}}
		if _, err := mixed.Write(append(callBytes(t, 1, ""), frameBytes(t, f, nil)...)); err != nil {
			t.Fatal(err)
		}
		wantReset(t, mixed, api.CodeBadRequest)
	})
}
