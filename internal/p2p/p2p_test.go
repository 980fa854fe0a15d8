package p2p_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
)

// transports runs a test over each transport on its own.
func transports(t *testing.T, f func(t *testing.T, only p2ptest.Option)) {
	t.Run("quic", func(t *testing.T) { testutil.LeakCheck(t); f(t, p2ptest.QUICOnly) })
	t.Run("tcp", func(t *testing.T) { testutil.LeakCheck(t); f(t, p2ptest.TCPOnly) })
}

func timeout(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func call(t testing.TB, h *p2p.Host, to *p2p.Host, payload []byte) []byte {
	t.Helper()
	r, answer, err := h.Request(timeout(t, 20*time.Second), to.Node(), p2ptest.Open(wire.Kind_KIND_CALL), payload)
	if err != nil {
		t.Fatalf("request: %v", err)
	}
	if err := r.Err(); err != nil {
		t.Fatalf("reply: %v", err)
	}
	return answer
}

func TestRequestAndStream(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		a, b := p2ptest.NewPair(t, only)
		for _, size := range []int{0, 1, 1000, 100_000, 1<<20 - 4096} {
			want := bytes.Repeat([]byte("x"), size)
			if got := call(t, a, b, want); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes came back as %d", size, len(got))
			}
		}
		if got := call(t, b, a, []byte("back")); string(got) != "back" {
			t.Fatalf("got %q", got)
		}
		conn, r, _, err := a.OpenStream(timeout(t, 20*time.Second), b.Node(), p2ptest.Open(wire.Kind_KIND_STREAM), nil)
		if err != nil || r.Err() != nil {
			t.Fatal(err, r.Err())
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
