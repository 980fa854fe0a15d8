package p2p_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// accepter hands each accepted stream to the test, and keeps it open until the
// context ends or the test closes done.
type accepter struct {
	conns chan router.Conn
	ended chan error
	done  chan struct{}
}

func newAccepter(t *testing.T) *accepter {
	a := &accepter{conns: make(chan router.Conn, 4096), ended: make(chan error, 4096), done: make(chan struct{})}
	t.Cleanup(sync.OnceFunc(func() { close(a.done) }))
	return a
}

func (a *accepter) ServeFrame(ctx context.Context, p p2p.Peer, f *wire.Frame, payload []byte, accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
	switch f.GetOpen().GetProtocol() {
	case "Echo":
		return p2ptest.Echo(ctx, p, f, payload, accept)
	case "Reset": // accepts, and aborts at once
		if conn, err := accept(&wire.Reply{}); err == nil {
			conn.Reset(api.CodeHandlerFailed)
		}
		return nil, nil
	case "Hang": // never answers
		a.conns <- nil
		<-ctx.Done()
		a.ended <- ctx.Err()
		return wire.ReplyError(api.Errorf(api.CodeCancelled, "gone")), nil
	}
	conn, err := accept(&wire.Reply{})
	if err != nil {
		return wire.ReplyError(err), nil
	}
	a.conns <- conn
	select {
	case <-ctx.Done():
	case <-a.done:
	}
	return nil, nil
}

func openProto(t *testing.T, from, to *p2p.Host, protocol string) router.Conn {
	t.Helper()
	f := p2ptest.Open(wire.Kind_KIND_STREAM)
	f.GetOpen().Protocol = protocol
	conn, r, _, err := from.OpenStream(timeout(t, 20*time.Second), to.Node(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// streamPair gives both ends of one stream from a to b.
func streamPair(t *testing.T, opts ...p2ptest.Option) (near, far router.Conn, a, b *p2p.Host) {
	acc := newAccepter(t)
	a, b = p2ptest.NewPairOf(t, acc, acc, opts...)
	near = openProto(t, a, b, "Hold")
	return near, recv(t, acc.conns, "stream"), a, b
}

func TestHalfClose(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		near, far, _, _ := streamPair(t, only)
		for i, side := range []struct{ w, r router.Conn }{{near, far}, {far, near}} {
			data := bytes.Repeat([]byte{byte('a' + i)}, 3<<20)
			errs := make(chan error, 1)
			go func() {
				_, err := side.w.Write(data)
				errs <- errors.Join(err, side.w.CloseWrite())
			}()
			got, err := io.ReadAll(side.r)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("direction %d: %d bytes, %v", i, len(got), err)
			}
			if err := recv(t, errs, "end of the writing"); err != nil {
				t.Fatal(err)
			}
			if _, err := side.w.Write([]byte("x")); err == nil {
				t.Error("a write after the end succeeded")
			}
			if n, err := side.r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("a second read after the end: %d, %v", n, err)
			}
		}
		if near.Close() != nil || far.Close() != nil {
			t.Error("closing an ended stream failed")
		}
	})
}

func TestResetCarriesItsCode(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		acc := newAccepter(t)
		a, b := p2ptest.NewPairOf(t, acc, acc, only)
		for _, code := range []api.Code{api.CodeAborted, api.CodeStalled, api.CodeTimeout, api.CodeHandlerFailed, api.CodeNotPermitted} {
			for _, fromFar := range []bool{false, true} {
				near := openProto(t, a, b, "Hold")
				far := recv(t, acc.conns, "stream")
				from, to := near, far
				if fromFar {
					from, to = far, near
				}
				if _, err := to.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(from, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				from.Reset(code)
				_, err := io.ReadAll(to)
				wantCode(t, err, code)
				eventually(t, "the other direction to end", func() bool { // QUIC ends each on its own
					_, err = to.Write([]byte("x"))
					return err != nil
				})
				wantCode(t, err, code)
				_, err = from.Read(make([]byte, 1))
				wantCode(t, err, code)
				_, err = from.Write([]byte("x"))
				wantCode(t, err, code)
			}
		}
	})
}

// A stream that is closed before both sides ended it was aborted.
// A stream that is aborted as soon as it was accepted gives the same answer whether
// the abort overtakes the acceptance or not.
func TestResetThatOvertakesTheAnswer(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		acc := newAccepter(t)
		a, b := p2ptest.NewPairOf(t, acc, acc, only)
		overtaken := 0
		for range 200 {
			f := p2ptest.Open(wire.Kind_KIND_STREAM)
			f.GetOpen().Protocol = "Reset"
			conn, _, _, err := a.OpenStream(timeout(t, 20*time.Second), b.Node(), f, nil)
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			} else {
				overtaken++
			}
			wantCode(t, err, api.CodeHandlerFailed)
			if err.Error() != "the stream was reset by the peer: handler_failed" {
				t.Fatal(err)
			}
		}
		t.Logf("%d of 200 aborts overtook the answer", overtaken)
	})
}

func TestCloseBeforeTheEndAborts(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		near, far, _, _ := streamPair(t, only)
		if err := near.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(far); err != nil {
			t.Fatalf("a clean end reads as %v", err)
		}
		if err := near.Close(); err != nil { // far has not ended its direction
			t.Fatal(err)
		}
		eventually(t, "the other side to notice", func() bool {
			_, err := far.Write(make([]byte, 1024))
			return err != nil
		})
		_, err := far.Write([]byte("x"))
		wantCode(t, err, api.CodeAborted)
	})
}

// A lost connection never looks like the end of a stream.
func TestLostConnectionIsNoEnd(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		near, _, a, b := streamPair(t, only)
		got := make(chan error, 1)
		go func() {
			_, err := io.ReadAll(near)
			got <- err
		}()
		b.CloseNode(a.Node())
		wantCode(t, recv(t, got, "error"), api.CodeAborted)
	})
}

func TestServerLearnsOfAGivenUpOpening(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		acc := newAccepter(t)
		a, b := p2ptest.NewPairOf(t, acc, acc, only)
		f := p2ptest.Open(wire.Kind_KIND_STREAM)
		f.GetOpen().Protocol = "Hang"
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() {
			_, _, _, err := a.OpenStream(ctx, b.Node(), f, nil)
			got <- err
		}()
		recv(t, acc.conns, "opening")
		cancel()
		wantCode(t, recv(t, got, "error"), api.CodeCancelled)
		if err := recv(t, acc.ended, "end of the server's context"); !errors.Is(err, context.Canceled) {
			t.Errorf("the server's context ended with %v", err)
		}
	})
}

// stall fills the windows of n streams whose other end is not read.
func stall(t *testing.T, a, b *p2p.Host, acc *accepter, n, window int) (near, far []router.Conn) {
	t.Helper()
	chunk := make([]byte, window-4<<10) // the opening took a little of the window
	for range n {
		conn := openProto(t, a, b, "Hold")
		near = append(near, conn)
		far = append(far, recv(t, acc.conns, "stream"))
		if _, err := conn.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	return near, far
}

const stallWindow = 256 << 10

func smallWindows(o *p2p.Options) { o.WindowInitial, o.WindowMax = stallWindow, 4*stallWindow }

func TestStalledReadersSlowNobody(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		acc := newAccepter(t)
		a, b := p2ptest.NewPairOf(t, acc, acc, only, smallWindows)
		near, _ := stall(t, a, b, acc, 100, stallWindow)
		var blocked sync.WaitGroup
		for _, c := range near { // and each has more to say
			blocked.Go(func() { _, _ = c.Write(make([]byte, 8*stallWindow)) })
		}
		t.Cleanup(blocked.Wait)
		t.Cleanup(func() {
			for _, c := range near {
				c.Reset(api.CodeAborted)
			}
		})
		echoed(t, openProto(t, a, b, "Echo"), 8<<20)
		for range 20 {
			call(t, a, b, make([]byte, 100_000))
		}
		// None was reset: 100 are within the budget.
		for i, c := range near {
			if n, err := readSoon(c); n != 0 || err == nil || api.CodeOf(err) != api.CodeInternal {
				t.Fatalf("stalled stream %d was touched: %v", i, err)
			}
		}
	})
}

// readSoon is what a read gives within a moment; an error that is no *api.Error
// if it gives nothing.
func readSoon(c router.Conn) (int, error) {
	type result struct {
		n   int
		err error
	}
	ch := make(chan result, 1)
	go func() {
		n, err := c.Read(make([]byte, 1))
		ch <- result{n, err}
	}()
	select {
	case r := <-ch:
		return r.n, r.err
	case <-time.After(2 * time.Millisecond):
		return 0, errors.New("nothing")
	}
}

// echoed sends n bytes and reads them back.
func echoed(t *testing.T, conn router.Conn, n int) {
	t.Helper()
	errs := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, n))
		errs <- errors.Join(err, conn.CloseWrite())
	}()
	done := make(chan int64, 1)
	go func() {
		m, _ := io.Copy(io.Discard, conn)
		done <- m
	}()
	if m := recv(t, done, "end of the echo"); m != int64(n) {
		t.Fatalf("%d of %d bytes came back", m, n)
	}
	if err := recv(t, errs, "end of the writing"); err != nil {
		t.Fatal(err)
	}
}

// logBook keeps what was logged, for tests.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestBeyondTheBudgetTheOldestStalledIsReset(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		var log logBook
		acc := newAccepter(t)
		a, b := p2ptest.NewPairOf(t, acc, acc, only, smallWindows, func(o *p2p.Options) {
			o.StalledStreams, o.Timing.Stalled = 4, 50*time.Millisecond
			o.Log = log.logger()
		})
		idle := openProto(t, a, b, "Hold") // older than all, but nothing waits in it
		idleFar := recv(t, acc.conns, "stream")
		near, far := stall(t, a, b, acc, 7, stallWindow)
		for i := range 3 {
			_, err := near[i].Read(make([]byte, 1))
			wantCode(t, err, api.CodeStalled)
			_, err = io.ReadAll(far[i])
			wantCode(t, err, api.CodeStalled)
		}
		// The others are whole: what was looked at is still there.
		for i := 3; i < 7; i++ {
			if _, err := io.ReadFull(far[i], make([]byte, stallWindow-4<<10)); err != nil {
				t.Fatalf("stalled stream %d within the budget: %v", i, err)
			}
		}
		if _, err := idle.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(idleFar, make([]byte, 1)); err != nil {
			t.Fatalf("a stream without data was reset: %v", err)
		}
		echoed(t, openProto(t, a, b, "Echo"), 4<<20)
		// By this key the daemon limits what one peer can have logged.
		if got := log.String(); !strings.Contains(got, "peer="+a.Node().String()) {
			t.Errorf("the log does not name the peer: %s", got)
		}
	})
}

// libp2p alone stops at 64 streams of one protocol and 256 of one connection.
func TestManyStreams(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		acc := newAccepter(t)
		a, b := p2ptest.NewPairOf(t, acc, acc, only)
		for i := range 2000 {
			near := openProto(t, a, b, "Hold")
			if _, err := near.Write([]byte{1}); err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
			if _, err := io.ReadFull(recv(t, acc.conns, "stream"), make([]byte, 1)); err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
		}
		if p := a.Peers(); p[0].Streams < 2000 {
			t.Errorf("%d streams are open", p[0].Streams)
		}
	})
}

// What cannot be sent is told with its reason: by the peer, which resets each
// stream, and by this side, of what no frame may hold.
func TestOpenThatCannotBeSent(t *testing.T) {
	overEach(t, func(t *testing.T, only p2ptest.Option, listen string) {
		book := p2ptest.NewBook()
		a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), only, func(o *p2p.Options) { o.Book = book })
		raw := rawHost(t, listen)
		raw.SetStreamHandler(p2p.Protocol, func(s network.Stream) {
			_ = s.ResetWithError(network.StreamResourceLimitExceeded)
		})
		book.Add(rawID(t, raw), raw.Addrs()[0].String())
		most := make([]byte, api.MaxPayload) // more than a window
		_, _, _, err := a.OpenStream(timeout(t, 20*time.Second), rawID(t, raw), p2ptest.Open(wire.Kind_KIND_STREAM), most)
		wantCode(t, err, api.CodePeerUnreachable)
		wantText(t, err, "two times over: the stream was reset by the peer: a limit was reached")
		_, _, _, err = a.OpenStream(timeout(t, 20*time.Second), rawID(t, raw), p2ptest.Open(wire.Kind_KIND_STREAM), append(most, 1))
		wantCode(t, err, api.CodeTooLarge)
	})
}
