package p2p_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
)

var benchTransports = []struct {
	name string
	only p2ptest.Option
	raw  string
}{
	{"quic", p2ptest.QUICOnly, "/ip4/127.0.0.1/udp/0/quic-v1"},
	{"tcp", p2ptest.TCPOnly, "/ip4/127.0.0.1/tcp/0"},
}

// BenchmarkRequest is one call over a shared request stream; compare it with
// BenchmarkRawStream.
func BenchmarkRequest(b *testing.B) {
	for _, tr := range benchTransports {
		b.Run(tr.name, func(b *testing.B) {
			x, y := p2ptest.NewPair(b, tr.only)
			payload := []byte(`{"message":"hello"}`)
			ctx := context.Background()
			f := p2ptest.Open(wire.Kind_KIND_CALL)
			if _, _, err := x.Request(ctx, y.Node(), f, payload); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
				if _, _, err := x.Request(ctx, y.Node(), f, payload); err != nil {
					b.Fatal(err)
				}
				cancel()
			}
		})
	}
}

// BenchmarkOpenStream opens a stream, sends a little, reads it back and closes.
func BenchmarkOpenStream(b *testing.B) {
	for _, tr := range benchTransports {
		b.Run(tr.name, func(b *testing.B) {
			x, y := p2ptest.NewPair(b, tr.only)
			b.ReportAllocs()
			for b.Loop() {
				conn, _, _, err := x.OpenStream(context.Background(), y.Node(), p2ptest.Open(wire.Kind_KIND_STREAM), nil)
				if err != nil {
					b.Fatal(err)
				}
				roundTrip(b, conn)
			}
		})
	}
}

func roundTrip(b *testing.B, conn interface {
	io.ReadWriteCloser
	CloseWrite() error
}) {
	if _, err := conn.Write([]byte("hello")); err != nil {
		b.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || len(got) != 5 {
		b.Fatal(len(got), err)
	}
	conn.Close()
}

// rawPair is two hosts of stock libp2p, connected, with an echo and a source.
func rawPair(b *testing.B, addr string) (x, y host.Host) {
	b.Helper()
	x, y = rawHost(b, addr), rawHost(b, addr)
	y.SetStreamHandler("/echo", func(s network.Stream) {
		defer s.Close()
		_, _ = io.Copy(s, s)
	})
	y.SetStreamHandler("/sink", func(s network.Stream) {
		defer s.Close()
		n := drain(s)
		_, _ = s.Write([]byte{byte(n)})
	})
	if err := x.Connect(context.Background(), peer.AddrInfo{ID: y.ID(), Addrs: y.Addrs()}); err != nil {
		b.Fatal(err)
	}
	return x, y
}

func BenchmarkRawStream(b *testing.B) {
	for _, tr := range benchTransports {
		b.Run(tr.name, func(b *testing.B) {
			x, y := rawPair(b, tr.raw)
			b.ReportAllocs()
			for b.Loop() {
				s, err := x.NewStream(context.Background(), y.ID(), "/echo")
				if err != nil {
					b.Fatal(err)
				}
				roundTrip(b, s)
			}
		})
	}
}

const bulk = 64 << 20

func drain(r io.Reader) int {
	buf, n := make([]byte, 128<<10), 0
	for {
		m, err := r.Read(buf)
		if n += m; err != nil {
			return n
		}
	}
}

func pour(b *testing.B, w interface {
	io.Writer
	CloseWrite() error
}, r io.Reader) {
	buf := make([]byte, 128<<10)
	for n := 0; n < bulk; n += len(buf) {
		if _, err := w.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if n := drain(r); n != 1 {
		b.Fatal("the sink did not answer", n)
	}
}

func BenchmarkBulk(b *testing.B) {
	sink := p2ptest.ServeFunc(func(_ context.Context, _ p2p.Peer, _ *wire.Frame, _ []byte, accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
		conn, err := accept(&wire.Reply{})
		if err != nil {
			return wire.ReplyError(err), nil
		}
		n := drain(conn)
		_, _ = conn.Write([]byte{byte(n)})
		_ = conn.CloseWrite()
		_ = conn.Close()
		return nil, nil
	})
	for _, tr := range benchTransports {
		b.Run(tr.name, func(b *testing.B) {
			x, y := p2ptest.NewPairOf(b, sink, sink, tr.only)
			b.SetBytes(bulk)
			for b.Loop() {
				conn, _, _, err := x.OpenStream(context.Background(), y.Node(), p2ptest.Open(wire.Kind_KIND_STREAM), nil)
				if err != nil {
					b.Fatal(err)
				}
				pour(b, conn, conn)
				conn.Close()
			}
		})
		b.Run(tr.name+"-raw", func(b *testing.B) {
			x, y := rawPair(b, tr.raw)
			b.SetBytes(bulk)
			for b.Loop() {
				s, err := x.NewStream(context.Background(), y.ID(), "/sink")
				if err != nil {
					b.Fatal(err)
				}
				pour(b, s, s)
				s.Close()
			}
		})
	}
}
