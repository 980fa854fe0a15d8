package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// fakeStream is one end of a socket pair whose end the test decides.
type fakeStream struct {
	*net.UnixConn
	once    sync.Once
	told    atomic.Bool // that the program failed
	unsaid  atomic.Bool // reset before that was told
	reset   chan struct{}
	aborted chan struct{} // closed by the test: the peer aborted
	probed  chan struct{} // closed by a write of nothing
	ends    atomic.Int32  // of 2 directions
	clean   chan struct{} // closed at the second end
}

func (f *fakeStream) end() {
	if f.ends.Add(1) == 2 {
		close(f.clean)
	}
}

func (f *fakeStream) Read(p []byte) (int, error) {
	n, err := f.UnixConn.Read(p)
	if err == io.EOF {
		f.end()
	}
	return n, err
}

func (f *fakeStream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		close(f.probed) // once at most
	}
	return f.UnixConn.Write(p)
}

func (f *fakeStream) CloseWrite() error {
	defer f.end()
	return f.UnixConn.CloseWrite()
}

func (f *fakeStream) Reset() error {
	f.once.Do(func() { f.unsaid.Store(!f.told.Load()); close(f.reset); _ = f.Close() })
	return nil
}

func (f *fakeStream) Result(ctx context.Context) (api.StreamResult, error) {
	select {
	case <-f.aborted:
		return api.StreamResult{Code: api.CodeAborted, Reason: "by the test"}, nil
	case <-f.clean:
		return api.StreamResult{Clean: true}, nil
	case <-f.reset: // ours, as the daemon tells it too
		return api.StreamResult{Code: api.CodeAborted, Reason: "the client reset the stream"}, nil
	case <-ctx.Done():
		return api.StreamResult{}, ctx.Err()
	}
}

func (f *fakeStream) wasReset() bool {
	select {
	case <-f.reset:
		return true
	default:
		return false
	}
}

// streamPair returns the listener's stream and the peer's end.
func streamPair(t *testing.T) (*fakeStream, *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close(); conn.Close() })
	return &fakeStream{UnixConn: conn, reset: make(chan struct{}), aborted: make(chan struct{}), probed: make(chan struct{}), clean: make(chan struct{})}, peer
}

func testApp(t *testing.T) *app {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	return &app{ctx: t.Context(), std: stdio{null, null, null}}
}

// serving runs script for one stream; its result comes from the channel.
func serving(t *testing.T, a *app, script string) (*fakeStream, *net.UnixConn, <-chan error) {
	t.Helper()
	s, peer := streamPair(t)
	in := &incoming{Incoming: api.Incoming{Kind: "stream", From: "from52", Contact: "bob", Protocol: "Chat"},
		Accept: func(context.Context) (stream, error) { return s, nil }}
	c := &listenCmd{Command: []string{"sh", "-c", script}}
	done := make(chan error, 1)
	go func() { done <- c.serveStream(a, in, func(error) { s.told.Store(true) }) }()
	return s, peer, done
}

func TestServeStream(t *testing.T) {
	for _, test := range []struct {
		name, script, send, want string
		reset                    bool
	}{
		{"both ways", "cat", "hello", "hello", false},
		{"the caller is told", `echo "$FASTN_FROM $FASTN_CONTACT $FASTN_PROTOCOL $FASTN_KIND"; cat`, "", "from52 bob Chat stream\n", false},
		{"ends without reading", "echo ready", "never read", "ready\n", false},
		{"fails", "cat; exit 3", "hello", "hello", true},
		{"is killed", "cat; kill -9 $$", "hello", "hello", true},
		{"does not exist", "exec /nonexistent 2>/dev/null", "", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			testutil.LeakCheck(t)
			s, peer, done := serving(t, testApp(t), test.script)
			_, err := io.WriteString(peer, test.send)
			if err != nil && !test.reset { // one that fails at once may have ended the stream already
				t.Fatal(err)
			}
			_ = peer.CloseWrite()
			got, _ := io.ReadAll(peer)
			if err := <-done; (err != nil) != test.reset {
				t.Errorf("error %v", err)
			}
			if string(got) != test.want {
				t.Errorf("the peer read %q, want %q", got, test.want)
			}
			if s.wasReset() != test.reset {
				t.Errorf("reset %v, want %v", s.wasReset(), test.reset)
			}
			if s.unsaid.Load() {
				t.Error("the peer learnt of the failure first")
			}
		})
	}
}

// A program that closes its output and reads on has only its direction ended.
func TestServeStreamHalfClose(t *testing.T) {
	testutil.LeakCheck(t)
	out := t.TempDir() + "/out"
	s, peer, done := serving(t, testApp(t), `echo first; exec >&-; cat > `+out)
	got, err := io.ReadAll(peer)
	if err != nil || string(got) != "first\n" {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := io.WriteString(peer, "late"); err != nil {
		t.Fatal(err)
	}
	_ = peer.CloseWrite()
	if err := <-done; err != nil || s.wasReset() {
		t.Errorf("error %v, reset %v", err, s.wasReset())
	}
	if kept, _ := os.ReadFile(out); string(kept) != "late" {
		t.Errorf("the program read %q", kept)
	}
}

// When the peer aborts, the program is told to end, with all it started.
func TestServeStreamPeerAborts(t *testing.T) {
	testutil.LeakCheck(t)
	s, peer, done := serving(t, testApp(t), `sleep 1000 & echo up; wait`)
	if _, err := io.ReadFull(peer, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	close(s.aborted)
	select {
	case err := <-done:
		if err == nil || !s.wasReset() {
			t.Errorf("error %v, reset %v", err, s.wasReset())
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the program was not ended")
	}
}

// A program never reads a clean end of a stream that was aborted.
func TestServeStreamAbortIsNoEnd(t *testing.T) {
	testutil.LeakCheck(t)
	whole := t.TempDir() + "/whole"
	s, peer, done := serving(t, testApp(t), `echo up; cat > /dev/null; touch `+whole)
	if _, err := io.ReadFull(peer, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	peer.Close() // as the daemon does, before it tells the result
	select {
	case <-s.probed:
	case err := <-done:
		t.Fatalf("ended before the result, error %v", err)
	}
	close(s.aborted)
	if err := <-done; err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(whole); err == nil {
		t.Error("the program took a part for the whole")
	}
}

// An interruption ends a program and aborts its stream, even one that ended
// well and left its output open in a child.
func TestServeStreamInterrupted(t *testing.T) {
	testutil.LeakCheck(t)
	a := testApp(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.ctx = ctx
	s, peer, done := serving(t, a, `(trap "" TERM; echo up; sleep 1000) & exit 0`)
	if _, err := io.ReadFull(peer, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	if !s.wasReset() {
		t.Error("the stream was not aborted")
	}
}

func TestAnswerCall(t *testing.T) {
	for _, test := range []struct {
		name, script, data, want string
		code                     api.Code
	}{
		{"data is input, output is the answer", "cat", `{"n":9007199254740993}`, `{"n":9007199254740993}`, ""},
		{"kind is told", `printf '"%s"' "$FASTN_KIND"`, "", `"call"`, ""},
		{"not JSON", "echo hello", "", "", api.CodeHandlerFailed},
		{"nothing", "true", "", "", api.CodeHandlerFailed},
		{"fails", "echo 1; exit 1", "", "", api.CodeHandlerFailed},
		{"too long", "head -c 2000000 /dev/zero", "", "", api.CodeTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			testutil.LeakCheck(t)
			var got json.RawMessage
			var fail *api.Error
			var told error
			in := &incoming{Incoming: api.Incoming{Kind: "call", Data: json.RawMessage(test.data)},
				Gone: make(chan struct{}),
				Reply: func(_ context.Context, data json.RawMessage, f *api.Error) error {
					got, fail = data, f
					if (told != nil) != (f != nil) {
						t.Errorf("told %v before the reply %v", told, f)
					}
					return nil
				}}
			err := (&listenCmd{Command: []string{"sh", "-c", test.script}}).answerCall(testApp(t), in, func(err error) { told = err })
			if string(got) != test.want || (fail != nil) != (test.code != "") || fail != nil && fail.Code != test.code {
				t.Errorf("answered %q, %v, want %q, %s", got, fail, test.want, test.code)
			}
			if (err != nil) != (fail != nil) {
				t.Errorf("told %v here and %v there", err, fail)
			}
		})
	}
}

// A caller that goes away gets no answer, and its program is ended.
func TestAnswerCallGone(t *testing.T) {
	testutil.LeakCheck(t)
	gone := make(chan struct{})
	close(gone)
	in := &incoming{Incoming: api.Incoming{Kind: "call"}, Gone: gone,
		Reply: func(context.Context, json.RawMessage, *api.Error) error {
			t.Error("a reply nobody waits for")
			return nil
		}}
	if err := (&listenCmd{Command: []string{"sleep", "1000"}}).answerCall(testApp(t), in, func(error) {}); err == nil {
		t.Error("no error")
	}
}

// A peer that sends more than anybody would throw away is stopped.
func TestServeStreamUnreadInputIsBounded(t *testing.T) {
	testutil.LeakCheck(t)
	s, peer, done := serving(t, testApp(t), "echo done")
	_, err := io.Copy(peer, io.LimitReader(zeros{}, 1<<40))
	if err == nil {
		t.Error("everything was taken")
	}
	<-done
	if !s.wasReset() {
		t.Error("not reset")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestVersionSkewIsTold(t *testing.T) {
	a := testApp(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	a.std.Out, a.std.Err = w, w
	a.conn = fakeDaemon{hello: api.Hello{Daemon: "9.9", Version: 1, PerUser: true}}
	if err := (&versionCmd{}).run(a); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var b bytes.Buffer
	_, _ = b.ReadFrom(r)
	for _, want := range []string{"warning: the running daemon is not of this version", `"fastn daemon stop", then "fastn daemon start"`, "9.9 (protocol 1)"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}

type fakeDaemon struct {
	daemon
	hello api.Hello
}

func (f fakeDaemon) Hello(context.Context) (api.Hello, error) { return f.hello, nil }

func (f fakeDaemon) Verb(context.Context, string, any, ...*os.File) (json.RawMessage, error) {
	return json.Marshal(api.Status{Daemon: api.DaemonStatus{Version: f.hello.Daemon, PerUser: true}})
}

func TestStatusTellsVersionSkew(t *testing.T) {
	for daemon, told := range map[string]bool{version: false, "9.9": true} {
		a := testApp(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		a.std.Out, a.flags.Socket = w, "/x/daemon.sock"
		a.conn = fakeDaemon{hello: api.Hello{Daemon: daemon}}
		if err := (&statusCmd{}).run(a); err != nil {
			t.Fatal(err)
		}
		w.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(r)
		want := "problem: the running daemon is not of this version\n    fix: to run the one that is installed: \"fastn --home /x daemon stop\", then "
		if strings.HasPrefix(b.String(), want) != told {
			t.Errorf("of daemon %s:\n%s", daemon, b.String())
		}
	}
}
