package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

var past = time.Unix(1, 0)

// appendLine makes the line of r, or tells why no daemon would take it.
func appendLine(r *api.Request) ([]byte, error) {
	if len(r.Data) > api.MaxPayload {
		return nil, api.Errorf(api.CodeTooLarge, `"data" has %d bytes, the limit is %d`, len(r.Data), api.MaxPayload)
	}
	line := api.AppendRequest(make([]byte, 0, 256+len(r.Data)), r)
	if len(line) > api.MaxLine {
		return nil, api.Errorf(api.CodeTooLarge, "the request has %d bytes, the limit is %d", len(line), api.MaxLine)
	}
	return line, nil
}

// interrupt has set, one of a connection's deadlines, end what waits there when ctx
// ends, until undo is called.
func interrupt(ctx context.Context, set func(time.Time) error) (undo func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = set(past) // fails only if the connection is closed, as below
	})
	return func() {
		if !stop() {
			<-woken
			_ = set(time.Time{})
		}
	}
}

// silent tells that nothing has come that was not read, and that the other end has not
// closed.
func silent(raw syscall.RawConn) bool {
	var err error
	closed := raw.Control(func(fd uintptr) {
		_, _, err = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return closed == nil && err == syscall.EAGAIN
}

// writeLine writes line, with the descriptors of files on its first bytes, until
// ctx ends. n tells how much the daemon may have seen.
func writeLine(ctx context.Context, conn *net.UnixConn, line []byte, files []*os.File) (n int, err error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	defer interrupt(ctx, conn.SetWriteDeadline)()
	if len(files) > 0 {
		n, err = writeFiles(conn, line, files, nil)
		if err != nil {
			return n, err
		}
	}
	m, err := conn.Write(line[n:])
	return n + m, err
}

// writeFiles is a Write with the descriptors fds and those of files, which stay
// open and as they are meanwhile: File.Fd would make them blocking.
func writeFiles(conn *net.UnixConn, line []byte, files []*os.File, fds []int) (n int, err error) {
	if len(files) == 0 {
		n, _, err = conn.WriteMsgUnix(line, syscall.UnixRights(fds...), nil)
		return n, err
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return 0, errBadFile(err)
	}
	closed := raw.Control(func(fd uintptr) {
		n, err = writeFiles(conn, line, files[1:], append(fds, int(fd)))
	})
	if closed != nil {
		return 0, errBadFile(closed)
	}
	return n, err
}

func errBadFile(err error) *api.Error {
	return api.Errorf(api.CodeBadRequest, "a file cannot be passed to the daemon: %v", err)
}

// lines reads lines. A deadline may end a read in the middle of one: the next read
// goes on there.
type lines struct {
	r    *bufio.Reader
	part []byte // of the line under way
}

// next returns the next line without its newline; it is the caller's.
func (l *lines) next() ([]byte, error) {
	for {
		part, err := l.r.ReadSlice('\n')
		l.part = append(l.part, part...)
		if err == nil {
			line := l.part
			l.part = nil
			return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if len(l.part) > api.MaxLine {
			return nil, errors.New("the daemon sent a line that is too long")
		}
	}
}

// empty tells that nothing was read that was not returned.
func (l *lines) empty() bool { return len(l.part) == 0 && l.r.Buffered() == 0 }

// readLine returns the next line without its newline; it is the caller's.
func readLine(in *bufio.Reader) ([]byte, error) { return (&lines{r: in}).next() }

// answer is a line from the daemon.
type answer struct {
	id     string
	noID   bool
	status string
	data   json.RawMessage
	err    error // of an error's line
}

// parseAnswer reads a line, which it keeps.
func parseAnswer(line []byte) (answer, error) {
	if a, ok := parseOK(line); ok {
		return a, nil
	}
	var r api.Response
	if err := json.Unmarshal(line, &r); err != nil {
		return answer{}, err
	}
	a := answer{noID: r.ID == nil, status: r.Status, data: r.Data, err: r.Err()}
	if r.ID != nil {
		a.id = *r.ID
	}
	return a, nil
}

// parseOK reads the line of a success as the daemon writes it, without looking
// into data: it is for the caller to parse, once.
func parseOK(line []byte) (answer, bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"id":"`))
	if !ok {
		return answer{}, false
	}
	i := bytes.IndexByte(rest, '"')
	if i < 0 || bytes.IndexByte(rest[:i], '\\') >= 0 {
		return answer{}, false
	}
	a := answer{id: string(rest[:i]), status: api.StatusOK}
	rest, ok = bytes.CutPrefix(rest[i:], []byte(`","status":"ok"`))
	if !ok {
		return answer{}, false
	}
	if len(rest) == 1 && rest[0] == '}' {
		return a, true
	}
	rest, ok = bytes.CutPrefix(rest, []byte(`,"data":`))
	if !ok || len(rest) < 2 || rest[len(rest)-1] != '}' {
		return answer{}, false
	}
	a.data = rest[:len(rest)-1]
	return a, true
}

func outcomeUnknown() *api.Error {
	return api.Errorf(api.CodeOutcomeUnknown, "the connection to the fastn daemon broke before its answer; whether the request was done is not known").
		WithHint("look whether it was done before you repeat it")
}
