package client_test

import (
	"bufio"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/service/api"
)

// A file that was passed stays as it was: its deadlines work on, and a Close still
// wakes who reads it.
func TestPassedFiles(t *testing.T) {
	c, _, _ := start(t, ipc.Options{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := c.Verb(limited(t), api.VerbIdentityExport, api.IdentityArgs{Identity: "default"}, nil, w); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "key of ") {
		t.Fatalf("%q, %v", line, err)
	}
	raw, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("flags %#x, %v: the file blocks now", flags, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A file that is closed is no reason to send anything.
func TestClosedFile(t *testing.T) {
	c, _, _ := start(t, ipc.Options{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	wantCode(t, c.Verb(limited(t), api.VerbIdentityExport, api.IdentityArgs{Identity: "default"}, nil, w), api.CodeBadRequest)
	if _, err := c.Call(limited(t), echo("x")); err != nil {
		t.Error(err)
	}
}
