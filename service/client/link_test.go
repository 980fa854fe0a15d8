package client_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// fakeDaemon is a connection of which the test is the daemon.
func fakeDaemon(t *testing.T) (c *client.Client, conn net.Conn, in *bufio.Reader) {
	t.Helper()
	testutil.LeakCheck(t)
	path := ipctest.Socket(t)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c = connect(t, path)
	conn, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c, conn, bufio.NewReader(conn)
}

// called is a call under way, as the daemon has read it.
type called struct {
	id     string
	data   json.RawMessage
	err    error
	done   chan struct{}
	cancel context.CancelFunc
}

func begin(t *testing.T, c *client.Client, in *bufio.Reader) *called {
	t.Helper()
	ctx, cancel := context.WithCancel(limited(t))
	k := &called{done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(k.done)
		k.data, k.err = c.Call(ctx, echo("x"))
	}()
	line, err := in.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var r api.Request
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatal(err)
	}
	k.id = r.ID
	return k
}

func answer(t *testing.T, conn net.Conn, k *called, data string) {
	t.Helper()
	if _, err := conn.Write(api.AppendAnswer(nil, k.id, api.StatusOK, []byte(data))); err != nil {
		t.Fatalf("an answer is not read: %v", err)
	}
}

func (k *called) want(t *testing.T, data string) {
	t.Helper()
	if <-k.done; k.err != nil || string(k.data) != data {
		t.Fatalf("got %s, %v, want %s", k.data, k.err, data)
	}
}

// Whoever reads leaves once it has its own answer; the others get theirs all the same.
func TestReaderLeaves(t *testing.T) {
	c, conn, in := fakeDaemon(t)
	for range 3 {
		first, second, third := begin(t, c, in), begin(t, c, in), begin(t, c, in)
		answer(t, conn, first, `1`)
		first.want(t, `1`)
		answer(t, conn, third, `3`)
		third.want(t, `3`)
		answer(t, conn, second, `2`)
		second.want(t, `2`)
	}
}

// The answer to a request that was given up is read though nobody waits for anything:
// a daemon cuts off who leaves answers unread.
func TestLateAnswerIsRead(t *testing.T) {
	c, conn, in := fakeDaemon(t)
	large := `"` + strings.Repeat("x", 900<<10) + `"` // more than sockets hold
	for range 3 {
		given := begin(t, c, in)
		given.cancel()
		<-given.done
		wantCode(t, given.err, api.CodeCancelled)
		answer(t, conn, given, large)
		next := begin(t, c, in)
		answer(t, conn, next, `"next"`)
		next.want(t, `"next"`)
	}
}

// until returns once it is so.
func until(t *testing.T, so func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !so(); runtime.Gosched() {
		if time.Now().After(late) {
			t.Fatal("it does not come to be")
		}
	}
}

// unreadBy is how many bytes of what was written the other end has not read.
func unreadBy(t *testing.T, conn net.Conn) (n int) {
	t.Helper()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var gone error
	err = raw.Control(func(fd uintptr) { n, gone = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if err = errors.Join(err, gone); err != nil {
		t.Fatal(err)
	}
	return n
}

// A request that is given up in the middle of its answer leaves the rest to be read.
func TestGivenUpAmidAnAnswer(t *testing.T) {
	c, conn, in := fakeDaemon(t)
	for range 3 {
		given := begin(t, c, in)
		line := api.AppendAnswer(nil, given.id, api.StatusOK, []byte(`"too late"`))
		if _, err := conn.Write(line[:20]); err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { return unreadBy(t, conn) == 0 })
		given.cancel()
		<-given.done
		wantCode(t, given.err, api.CodeCancelled)
		next := begin(t, c, in)
		if _, err := conn.Write(line[20:]); err != nil {
			t.Fatal(err)
		}
		answer(t, conn, next, `"next"`)
		next.want(t, `"next"`)
	}
}

// lingering is a context whose second AfterFunc, that of who reads, is not stopped before
// it is let go.
type lingering struct {
	context.Context
	done  chan struct{}
	calls atomic.Int32
	leave chan struct{} // closed when the reader leaves
	let   chan struct{}
}

func (l *lingering) Done() <-chan struct{} { return l.done }
func (l *lingering) AfterFunc(func()) (stop func() bool) {
	if l.calls.Add(1) < 2 {
		return func() bool { return true }
	}
	return func() bool {
		close(l.leave)
		<-l.let
		return true
	}
}

// Close returns also where who reads has its answer, and leaves at that moment.
func TestCloseWhileTheReaderLeaves(t *testing.T) {
	c, conn, in := fakeDaemon(t)
	ctx := &lingering{Context: context.Background(), done: make(chan struct{}), leave: make(chan struct{}), let: make(chan struct{})}
	called := make(chan error, 1)
	go func() {
		_, err := c.Call(ctx, echo("x"))
		called <- err
	}()
	line, err := in.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var r api.Request
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(api.AppendAnswer(nil, r.ID, api.StatusOK, nil)); err != nil {
		t.Fatal(err)
	}
	<-ctx.leave
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	until(t, func() bool { // it waits for the one who reads
		stacks := make([]byte, 1<<20)
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte(".(*link).awaitEnd"))
	})
	close(ctx.let)
	if err := <-called; err != nil {
		t.Error(err)
	}
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("Close does not return")
	}
}

// What a daemon said to a connection long ago is no answer to what is asked now: where
// it said so before anything was sent, it is asked anew.
func TestRefusedLongAgo(t *testing.T) {
	for _, end := range []func(*net.UnixConn) error{(*net.UnixConn).Close, (*net.UnixConn).CloseWrite} {
		for _, code := range []api.Code{api.CodeUnavailable, api.CodeOverBudget} {
			testutil.LeakCheck(t)
			path := ipctest.Socket(t)
			old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			c := connect(t, path)
			conn, err := old.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(api.AppendError(nil, "", true, api.Errorf(code, "not now"))); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(end(conn), old.Close()); err != nil {
				t.Fatal(err)
			}
			ipctest.Start(t, path, ipctest.NewBackend(), ipc.Options{})
			if _, err := c.Call(limited(t), echo("x")); err != nil {
				t.Errorf("%s: %v", code, err)
			}
			conn.Close()
		}
	}
}

// Many share a connection, and some give up at any moment: everybody else gets
// their own answer.
func TestSharedConnection(t *testing.T) {
	c, b, _ := start(t, ipc.Options{})
	b.Handle("Slow", router.HandlerFunc(func(ctx context.Context, _ *router.Request) (json.RawMessage, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	var wg sync.WaitGroup
	for who := range 8 {
		wg.Go(func() {
			for i := range 100 {
				text := fmt.Sprintf("%d of %d", i, who)
				got, err := c.Call(limited(t), echo(text))
				if err != nil || string(got) != `{"echoed":"Echo: `+text+`"}` {
					t.Errorf("%s: %s, %v", text, got, err)
				}
			}
		})
		wg.Go(func() {
			for i := range 20 {
				ctx, cancel := context.WithTimeout(limited(t), time.Duration(i%5)*200*time.Microsecond)
				_, err := c.Call(ctx, client.Request{Target: api.TargetSelf, Protocol: "Slow", Timeout: time.Duration(1+i%3) * 5 * time.Millisecond})
				cancel()
				if code := api.CodeOf(err); code != api.CodeTimeout {
					t.Errorf("given up: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := c.Call(limited(t), echo("x")); err != nil {
		t.Fatal(err)
	}
}
