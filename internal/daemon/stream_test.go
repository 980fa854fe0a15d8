package daemon

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// noise is n bytes that no buffer holds twice.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

func openStream(t testing.TB, d *testDaemon, target, protocol string) *client.Stream {
	t.Helper()
	s, err := d.c.Stream(limited(t), to(target, protocol, nil))
	if err != nil {
		t.Fatalf("stream %s of %s: %s", protocol, target, full(err))
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func result(t testing.TB, s *client.Stream) api.StreamResult {
	t.Helper()
	r, err := s.Result(limited(t))
	if err != nil {
		t.Fatal(full(err))
	}
	return r
}

func wantClean(t testing.TB, what string, s *client.Stream) {
	t.Helper()
	if r := result(t, s); !r.Clean {
		t.Errorf("%s: the stream ended with %s: %s", what, r.Code, r.Reason)
	}
}

func wantEnded(t testing.TB, what string, s *client.Stream, code api.Code) {
	t.Helper()
	if r := result(t, s); r.Clean || r.Code != code {
		t.Errorf("%s: the stream ended with %q (%s), clean: %v; want %q", what, r.Code, r.Reason, r.Clean, code)
	}
}

// grantPipe lets all contacts of d use a protocol of its own, "pipe", and tells
// of each stream that a contact opens.
func grantPipe(t testing.TB, d *testDaemon) (streams <-chan *client.Stream, stop func()) {
	t.Helper()
	verb[api.Grant](t, d.c, api.VerbGrantAdd, api.GrantArgs{Who: api.WhoContacts, Protocol: "pipe"})
	taken := make(chan *client.Stream, 16)
	stop = serve(t, d.c, "pipe", func(ctx context.Context, in *client.Incoming) {
		s, err := in.Accept(ctx)
		if err != nil {
			return // the test sees that none came
		}
		taken <- s
	})
	return taken, stop
}

// openPipe is a stream between two programs, near and far.
func openPipe(t testing.TB, from *testDaemon, target string, streams <-chan *client.Stream) (near, far *client.Stream) {
	t.Helper()
	near = openStream(t, from, target, "pipe")
	far = receive(t, "the far end of the stream", streams)
	t.Cleanup(func() { _ = far.Close() })
	// What went through once goes through the whole way.
	if _, err := near.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestStreamReturnsEveryByte(t *testing.T) {
	testutil.LeakCheck(t)
	alice, _ := pair(t)
	s := openStream(t, alice, "bob", api.ProtocolEcho)
	sent := noise(8 << 20)
	wrote := make(chan error, 1)
	go func() {
		_, err := io.Copy(s, bytes.NewReader(sent))
		if err == nil {
			err = s.CloseWrite()
		}
		wrote <- err
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back of %d: %v", len(got), len(sent), err)
	}
	if err := receive(t, "the writer", wrote); err != nil {
		t.Fatal(err)
	}
	wantClean(t, "near", s)
}

func TestHalfCloseFromTheNearEnd(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	streams, _ := grantPipe(t, bob)
	near, far := openPipe(t, alice, "bob", streams)
	transfer(t, near, far)
	transfer(t, far, near)
	wantClean(t, "near", near)
	wantClean(t, "far", far)
}

func TestHalfCloseFromTheFarEnd(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	streams, _ := grantPipe(t, bob)
	near, far := openPipe(t, alice, "bob", streams)
	transfer(t, far, near)
	transfer(t, near, far)
	wantClean(t, "near", near)
	wantClean(t, "far", far)
}

// transfer sends 1 MiB and ends that direction; the other side reads to its end.
func transfer(t testing.TB, from, to *client.Stream) {
	t.Helper()
	sent := noise(1 << 20)
	wrote := make(chan error, 1)
	go func() {
		_, err := from.Write(sent)
		if err == nil {
			err = from.CloseWrite()
		}
		wrote <- err
	}()
	got, err := io.ReadAll(to)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes of %d came: %v", len(got), len(sent), err)
	}
	if err := receive(t, "the writer", wrote); err != nil {
		t.Fatal(err)
	}
}

func TestAbortIsNoEnd(t *testing.T) {
	for _, c := range []struct {
		name  string
		abort func(t *testing.T, bob *testDaemon, near, far *client.Stream)
	}{
		{"the far program resets", func(t *testing.T, _ *testDaemon, _, far *client.Stream) {
			if err := far.Reset(limited(t)); err != nil {
				t.Fatal(full(err))
			}
		}},
		{"the far program is gone", func(t *testing.T, _ *testDaemon, _, far *client.Stream) {
			_ = far.Close()
		}},
		{"the near program resets", func(t *testing.T, _ *testDaemon, near, _ *client.Stream) {
			if err := near.Reset(limited(t)); err != nil {
				t.Fatal(full(err))
			}
		}},
		{"the near program is gone", func(t *testing.T, _ *testDaemon, near, _ *client.Stream) {
			_ = near.Close()
		}},
		{"the far daemon is stopped", func(t *testing.T, bob *testDaemon, _, _ *client.Stream) {
			bob.stop()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			testutil.LeakCheck(t)
			alice, bob := pair(t)
			streams, _ := grantPipe(t, bob)
			near, far := openPipe(t, alice, "bob", streams)
			c.abort(t, bob, near, far)
			wantEnded(t, "near", near, api.CodeAborted)
			if bob.node.Load() != nil { // somebody is left to be told
				wantEnded(t, "far", far, api.CodeAborted)
			}
		})
	}
}

// A client that vanishes without a word, as a killed one does, in the middle of
// what it receives.
func TestVanishedClientIsNoEnd(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	streams, _ := grantPipe(t, bob)
	near := alice.raw()
	if got := near.status(`{"id":"1","type":"stream","target":"bob","protocol":"pipe"}`); got != api.StatusStreaming {
		t.Fatal(got)
	}
	far := receive(t, "the far end", streams)
	defer far.Close()
	wrote := make(chan error, 1)
	go func() {
		_, err := io.Copy(far, endless{})
		wrote <- err
	}()
	if _, err := io.ReadFull(near.in, make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	_ = near.Close()
	if err := receive(t, "the writer", wrote); err == nil {
		t.Error("the far program wrote to nobody without an error")
	}
	wantEnded(t, "far", far, api.CodeAborted)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
