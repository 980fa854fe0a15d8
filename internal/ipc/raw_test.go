package ipc_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// raw is a client that knows no protocol: it sends bytes and reads lines.
type raw struct {
	t testing.TB
	*net.UnixConn
	r *bufio.Reader
}

// patience bounds every wait in the tests; what it bounds should take milliseconds.
const patience = 20 * time.Second

func dial(t testing.TB, path string) *raw {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &raw{t: t, UnixConn: c, r: bufio.NewReader(c)}
}

func (r *raw) send(lines ...string) {
	r.t.Helper()
	if _, err := io.WriteString(r.UnixConn, strings.Join(lines, "\n")+"\n"); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) line() string {
	r.t.Helper()
	s, err := r.r.ReadString('\n')
	if err != nil {
		r.t.Fatalf("read %q: %v", s, err)
	}
	return s
}

func (r *raw) answer() api.Response {
	r.t.Helper()
	return parse(r.t, r.line())
}

func parse(t testing.TB, line string) api.Response {
	t.Helper()
	var a api.Response
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		t.Fatalf("answer %q: %v", line, err)
	}
	return a
}

// ask sends a line and returns its answer.
func (r *raw) ask(line string) api.Response {
	r.t.Helper()
	r.send(line)
	return r.answer()
}

// want checks status, or code where it is an error's.
func (r *raw) want(a api.Response, id, statusOrCode string) api.Response {
	r.t.Helper()
	got := a.Status
	if got == api.StatusError {
		got = string(a.Code)
	}
	gotID := "null"
	if a.ID != nil {
		gotID = *a.ID
	}
	if got != statusOrCode || gotID != id {
		r.t.Fatalf("answer to %q is %q: %s; want %q to %q", gotID, got, a.Data, statusOrCode, id)
	}
	return a
}

// works checks that the connection still serves.
func (r *raw) works() {
	r.t.Helper()
	r.want(r.ask(`{"id":"works","type":"hello"}`), "works", "ok")
}

// eof checks that the server ends the connection with nothing more to read.
func (r *raw) eof() {
	r.t.Helper()
	rest, err := io.ReadAll(r.r)
	if err != nil && !strings.Contains(err.Error(), "reset by peer") {
		r.t.Fatalf("read to the end: %v", err)
	}
	if len(rest) > 0 {
		r.t.Fatalf("more came: %q", rest)
	}
}

// serve starts a server with a leak check.
func serve(t testing.TB, o ipc.Options) (path string, b *ipctest.Backend, s *ipc.Server) {
	t.Helper()
	testutil.LeakCheck(t)
	b = ipctest.NewBackend()
	path, s = serveBackend(t, b, o)
	return path, b, s
}

func serveBackend(t testing.TB, b ipc.Backend, o ipc.Options) (string, *ipc.Server) {
	t.Helper()
	path := ipctest.Socket(t)
	s, _ := ipctest.Start(t, path, b, o)
	return path, s
}

// eventually waits for a condition that another goroutine makes true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
