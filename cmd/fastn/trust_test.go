package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

func TestTrusted(t *testing.T) {
	own := uint32(os.Geteuid())
	dir := t.TempDir()
	socket := filepath.Join(dir, "daemon.sock")
	for uid, want := range map[uint32]bool{0: true, own: true, own + 12345: false} {
		for _, at := range []string{socket, api.SystemSocket} {
			if trusted(at)(uid) != want {
				t.Errorf("uid %d at %s: %v, want %v", uid, at, !want, want)
			}
		}
	}
	if own == 0 { // who looks after the daemon of somebody else
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if !trusted(socket)(12345) || trusted(socket)(12346) {
			t.Error("root trusts others than the owner of the folder")
		}
	}
}

// The program itself refuses the process of another user, with exit code 3.
func TestStrangersSocketIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to listen as somebody else")
	}
	dir, err := os.MkdirTemp("", "ft")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil { // as /tmp: root's, and open
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := listenAs(socket, 12345)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan int, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- -1
			return
		}
		defer c.Close()
		n, _ := c.Read(make([]byte, 1))
		got <- n
	}()
	out, err := exec.Command(filepath.Join(binaries, "fastn"), "--socket", socket, "contact", "add", "bob", "fastn1secret").CombinedOutput()
	if code := exitCodeOf(err); code != strconv.Itoa(exitNoDaemon) {
		t.Errorf("exit code %s\n%s", code, out)
	}
	if n := <-got; n != 0 {
		t.Errorf("it got %d bytes of what was sent\n%s", n, out)
	}
}

// listenAs makes the kernel tell uid of who listens: one thread, for a moment, is
// that user's.
func listenAs(path string, uid int) (net.Listener, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	keep := ^uintptr(0)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return nil, errno
	}
	defer func() { _, _, _ = syscall.RawSyscall(syscall.SYS_SETRESUID, keep, 0, keep) }()
	return net.Listen("unix", path)
}

func exitCodeOf(err error) string {
	if exit, ok := err.(*exec.ExitError); ok {
		return strconv.Itoa(exit.ExitCode())
	}
	return "0"
}
