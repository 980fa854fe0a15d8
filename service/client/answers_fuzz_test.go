package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// FuzzAnswers is a daemon that says anything: every request ends, with an
// answer or an *api.Error, and bytes behind "streaming" are a stream's.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		"", "\n", `{"id":"1","status":"ok","data":{"a":1}}` + "\n" + `{"id":"2","status":"ok"}` + "\r\n" + `{"id":"3","status":"error","data":"no","code":"not_found","hint":"h"}` + "\n",
		`{"id":"0","status":"streaming"}` + "\nraw\nbytes", `{"id":"0","status":"ok","data":{"cursor":1}}` + "\n" + `{"id":"0","status":"event","data":{"kind":"reloaded","cursor":2}}` + "\n",
		`{"id":"1","status":"ok"}` + "\n" + `{"id":"1","status":"incoming","data":{"incoming":"x","kind":"call"}}` + "\n" + `{"id":"1","status":"incoming","data":{"incoming":"x","cancel":true}}` + "\n",
		`{"id":null,"status":"error","data":"you may not","code":"not_permitted"}` + "\n", `{"id":null,"status":"ok"}` + "\n", `{"id":"\u0031","status":"ok","data":}` + "\n",
	} {
		f.Add([]byte(s), byte(0))
		f.Add([]byte(s), byte(3))
	}
	f.Fuzz(func(t *testing.T, said []byte, piece byte) {
		fuzzListener(t, said, int(piece)+1)
		fuzzLink(t, said, int(piece)+1)
		fuzzStream(t, said, int(piece)+1)
		fuzzEvents(t, said, int(piece)+1)
	})
}

// hostile gives a connection whose other end says said once asked requests were
// read, in pieces, and hangs up. done waits for that.
func hostile(t *testing.T, said []byte, piece, requests int) (conn *net.UnixConn, done func()) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "daemon")
		ends[i], err = net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer ends[1].Close()
		buf := make([]byte, 4096)
		for requests > 0 {
			n, err := ends[1].Read(buf)
			if err != nil {
				return
			}
			requests -= bytes.Count(buf[:n], []byte("\n"))
		}
		for part := range slices.Chunk(said, max(piece, len(said)/100)) {
			if _, err := ends[1].Write(part); err != nil {
				return // the client would hear no more
			}
		}
	})
	return ends[0].(*net.UnixConn), func() { ends[0].Close(); wg.Wait() }
}

// fuzzLink has requests on a connection that they read themselves.
func fuzzLink(t *testing.T, said []byte, piece int) {
	const requests = 3
	conn, done := hostile(t, said, piece, requests)
	defer done()
	l := newLink(conn, nil)
	fuzzRequests(t, l, said, requests)
	l.close()
	if len(l.waiting) > 0 {
		t.Errorf("%q: %d requests still wait", said, len(l.waiting))
	}
}

func fuzzRequests(t *testing.T, l *link, said []byte, requests int) {
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			_, _, err := l.do(t.Context(), &api.Request{Type: api.TypeHello}, nil)
			if e, ok := errors.AsType[*api.Error](err); err != nil && (!ok || e == nil) {
				t.Errorf("%q: %T %v", said, err, err)
			}
		})
	}
	wg.Wait()
}

// fuzzListener has requests on a connection that listens too.
func fuzzListener(t *testing.T, said []byte, piece int) {
	const requests = 3
	conn, done := hostile(t, said, piece, requests)
	defer done()
	l := newListener(New("daemon.sock", Options{}), conn)
	fuzzRequests(t, l.link, said, requests)
	for {
		if _, err := l.Next(t.Context()); err != nil {
			if api.CodeOf(err) != api.CodeUnavailable {
				t.Errorf("%q: %v", said, err)
			}
			break
		}
	}
	l.Close()
	if len(l.link.waiting) > 0 {
		t.Errorf("%q: %d requests still wait", said, len(l.link.waiting))
	}
}

func fuzzStream(t *testing.T, said []byte, piece int) {
	conn, done := hostile(t, said, piece, 1)
	defer done()
	line, rest, _ := bytes.Cut(said, []byte("\n"))
	in, err := first(context.Background(), conn, &api.Request{Type: api.TypeStream}, api.StatusStreaming)
	if err != nil {
		if _, ok := errors.AsType[*api.Error](err); !ok {
			t.Errorf("%q: %v", said, err)
		}
		return
	}
	if !bytes.Contains(line, []byte("streaming")) && !bytes.Contains(line, []byte(`\u`)) {
		t.Errorf("%q opened a stream", line)
	}
	before, _ := in.Peek(in.Buffered())
	s := &Stream{conn: conn, before: before}
	if raw, err := io.ReadAll(s); err != nil || !bytes.Equal(raw, rest) {
		t.Errorf("%q: the stream is %q, %v", said, raw, err)
	}
}

func fuzzEvents(t *testing.T, said []byte, piece int) {
	conn, done := hostile(t, said, piece, 1)
	defer done()
	_, in, err := firstData(t.Context(), conn, &api.Request{Type: api.TypeSubscribe}, api.StatusOK)
	if err != nil {
		return
	}
	s := &Subscription{conn: conn, in: in}
	for s.conn != nil { // as long as the connection lasts
		if _, err := s.read(t.Context()); err != nil {
			return
		}
	}
}
