package ipc_test

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// envChild is the socket that a child process streams to; see TestChild.
const envChild = "FASTN_TEST_CHILD_SOCKET"

// half is what a child sends of more that never comes.
const half = "half of what I ha"

// TestChild is no test but the process that others kill: it sends half of its data
// through a stream and waits.
func TestChild(t *testing.T) {
	path := os.Getenv(envChild)
	if path == "" {
		t.Skip("run by other tests")
	}
	c := dial(t, path)
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Test","stream":"` + uuidA + `"}`)
	c.want(c.answer(), "1", "streaming")
	c.write(half)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// child starts a process that streams to path. kill ends it as kill -9 does.
func child(t *testing.T, path string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), envChild+"="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // held open: it would end at its end
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // says that it was killed
			in.Close()
		}
	}
	t.Cleanup(kill)
	return kill
}

// A client that is killed has not ended its direction: who reads must not take
// half of the data for the whole.
func TestKilledClientAborts(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	got, ended := make(chan string, 1), make(chan error, 1)
	onStream(b, func(_ context.Context, conn router.Conn) error {
		p := make([]byte, len(half))
		if _, err := io.ReadFull(conn, p); err != nil {
			ended <- err
			return err
		}
		got <- string(p)
		rest, err := io.ReadAll(conn)
		if err == nil {
			err = conn.CloseWrite()
			t.Errorf("%d more bytes and a clean end", len(rest))
		}
		ended <- err
		return err
	})
	kill := child(t, path)
	if p := <-got; p != half {
		t.Fatalf("got %q", p)
	}
	kill()
	if err := <-ended; api.CodeOf(err) != api.CodeAborted {
		t.Errorf("the handler was told %v, want aborted", err)
	}
	if res := result(t, path); res.Clean || res.Code != api.CodeAborted {
		t.Errorf("result %+v, want aborted", res)
	}
}

// The same through a program that listens: its side of the splice is reset.
func TestKilledClientAbortsThroughListener(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	l, a := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Test"}`), "L", "ok")
	kill := child(t, path)
	in := l.incoming("L")
	a.want(a.ask(`{"id":"2","type":"accept","incoming":"`+in.Incoming+`"}`), "2", "streaming")
	if _, err := io.ReadFull(a.r, make([]byte, len(half))); err != nil {
		t.Fatal(err)
	}
	kill()
	a.eof()
	for _, id := range []string{uuidA, in.Incoming} {
		got := l.want(l.ask(`{"id":"r","type":"stream.result","stream":"`+id+`"}`), "r", "ok")
		if want := `{"clean":false,"code":"aborted","reason":"the client closed the stream before its end"}`; string(got.Data) != want {
			t.Errorf("result of %s: %s, want %s", id, got.Data, want)
		}
	}
}

// The acceptor may be killed as well.
func TestKilledAcceptorAborts(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	l, c, a := dial(t, path), dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Mine","stream":"` + uuidA + `"}`)
	in := l.incoming("L")
	a.want(a.ask(`{"id":"2","type":"accept","incoming":"`+in.Incoming+`"}`), "2", "streaming")
	c.want(c.answer(), "1", "streaming")
	a.write(half)
	if _, err := io.ReadFull(c.r, make([]byte, len(half))); err != nil {
		t.Fatal(err)
	}
	a.Close()
	c.eof()
	if res := result(t, path); res.Clean || res.Code != api.CodeAborted {
		t.Errorf("result %+v, want aborted", res)
	}
}

// A client that closes once the other side has ended has ended too: it has all
// that comes. However soon it closes, it is no abort.
func TestCloseAfterOtherEnd(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	ended := make(chan error, 1)
	onStream(b, func(_ context.Context, conn router.Conn) error {
		err := conn.CloseWrite()
		if err == nil {
			_, err = io.ReadAll(conn)
		}
		ended <- err
		return err
	})
	for range 200 {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, `{"id":"1","type":"stream","target":"self","protocol":"Test"}`+"\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := <-ended; err != nil {
			t.Fatalf("the handler was told %v", err)
		}
	}
}
