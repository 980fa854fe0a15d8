package ipc_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/service/api"
)

// sendFiles sends text in one message with descriptors of files.
func (r *raw) sendFiles(text string, files ...*os.File) {
	r.t.Helper()
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	n, _, err := r.WriteMsgUnix([]byte(text), syscall.UnixRights(fds...), nil)
	if err != nil || n != len(text) {
		r.t.Fatalf("sent %d of %d bytes: %v", n, len(text), err)
	}
}

func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// openTo counts this process's descriptors of f's file. The server is in the same
// process, so one that it does not close is seen.
func openTo(t testing.TB, f *os.File) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == f.Name() {
			n++
		}
	}
	return n
}

const export = `{"id":"%","type":"identity.export","data":{"identity":"default"}}` + "\n"

func TestDescriptor(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	flags := make(chan int, 1)
	b.HandleVerb(api.VerbIdentityExport, func(ctx context.Context, c ipc.Caller, r *api.Request, files []*os.File) (any, error) {
		n, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0)
		if err != nil {
			return nil, err
		}
		flags <- n
		return b.Export(ctx, c, r, files)
	})
	f := tempFile(t)
	c := dial(t, path)
	c.sendFiles(replace(export, "1"), f)
	c.want(c.answer(), "1", "ok")
	if got, err := os.ReadFile(f.Name()); err != nil || !strings.HasPrefix(string(got), "key of ") {
		t.Errorf("the file holds %q, %v", got, err)
	}
	if n := <-flags; n&unix.FD_CLOEXEC == 0 {
		t.Error("the descriptor would be inherited by programs that are started")
	}
	eventually(t, "the daemon closes it", func() bool { return openTo(t, f) == 1 })
}

// Descriptors where none belong are closed, the request is refused, and what
// stands before and behind it is not affected.
func TestDescriptorsRefused(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	f := tempFile(t)
	five := []*os.File{f, f, f, f, f}
	many := make([]*os.File, 200)
	for i := range many {
		many[i] = f
	}
	for _, tc := range []struct {
		name, line string
		id, code   string
		files      []*os.File
	}{
		{"type takes none", `{"id":"1","type":"hello"}` + "\n", "1", "bad_request", five[:1]},
		{"verb takes none", `{"id":"1","type":"peer.list"}` + "\n", "1", "bad_request", five[:1]},
		{"none where one belongs", replace(export, "1"), "1", "bad_request", nil},
		{"two where one belongs", replace(export, "1"), "1", "bad_request", five[:2]},
		{"five", replace(export, "1"), "1", "bad_request", five},
		{"two hundred", replace(export, "1"), "1", "bad_request", many},
		{"bad line", "hello\n", "null", "bad_request", five[:4]},
		{"unknown type", `{"id":"1","type":"no"}` + "\n", "1", "unsupported", five[:1]},
		{"empty line", "\n" + `{"id":"1","type":"hello"}` + "\n", "1", "bad_request", five[:1]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, path)
			c.send(`{"id":"before","type":"hello"}`)
			c.sendFiles(tc.line, tc.files...)
			c.send(`{"id":"behind","type":"hello"}`)
			c.want(c.answer(), "before", "ok")
			a := c.want(c.answer(), tc.id, tc.code)
			if over := strings.Contains(string(a.Data), "more than 4 descriptors"); over != (len(tc.files) > api.MaxFiles) {
				t.Errorf("%d descriptors: %s", len(tc.files), a.Data)
			}
			c.want(c.answer(), "behind", "ok")
			if n := openTo(t, f); n != 1 {
				t.Errorf("%d descriptors are open, want only the test's", n)
			}
		})
	}
}

// Descriptors belong to the line that holds the last byte they came with.
func TestDescriptorsOfManyLines(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	b.HandleVerb(api.VerbIdentityExport, func(_ context.Context, _ ipc.Caller, r *api.Request, files []*os.File) (any, error) {
		defer files[0].Close()
		_, err := fmt.Fprintln(files[0], r.ID)
		return nil, err
	})
	c := dial(t, path)
	const n = 40
	var all []*os.File
	for i := range n {
		f := tempFile(t)
		all = append(all, f)
		line := replace(export, fmt.Sprint(i))
		switch i % 3 {
		case 0:
			c.sendFiles(line, f)
		case 1: // the line comes in two parts, with the first
			c.sendFiles(line[:20], f)
			c.write(line[20:])
		case 2: // or with the last
			c.write(line[:20])
			c.sendFiles(line[20:], f)
		}
		if i%5 == 0 {
			c.send(`{"id":"h","type":"hello"}`)
		}
	}
	for range n + n/5 {
		if a := c.answer(); a.Status != "ok" {
			t.Fatalf("answer to %s: %s", *a.ID, a.Data)
		}
	}
	for i, f := range all {
		if got, err := os.ReadFile(f.Name()); err != nil || string(got) != fmt.Sprintln(i) {
			t.Errorf("file %d got %q, %v", i, got, err)
		}
	}
}

// What came with a line that never ended is closed with the connection, and raw
// bytes of a stream carry none.
func TestDescriptorsOfNoLine(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it closes files that nobody closes
	f := tempFile(t)
	c, s := dial(t, path), dial(t, path)
	c.sendFiles(`{"id":"1",`, f, f)
	c.sendFiles(`"type":`, f)
	c.CloseWrite()
	c.eof()
	s.want(s.ask(`{"id":"1","type":"stream","target":"self","protocol":"Echo"}`), "1", "streaming")
	s.sendFiles("bytes", f)
	s.CloseWrite()
	s.readAll("bytes")
	eventually(t, "connections end", func() bool { return b.InUse("connections") == 0 })
	if n := openTo(t, f); n != 1 {
		t.Errorf("%d descriptors are open, want only the test's", n)
	}
}
