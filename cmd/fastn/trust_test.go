package main

import (
	"os"
	"os/exec"
	"path/filepath"
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
	ready, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	listen := exec.Command("python3", "-c", `import socket,sys
s=socket.socket(socket.AF_UNIX);s.bind(sys.argv[1]);s.listen();print(flush=True)
c,_=s.accept();sys.exit(len(c.recv(1)))`, socket)
	listen.Stdout = w
	listen.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	if err := listen.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		_ = listen.Process.Kill()
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(binaries, "fastn"), "--socket", socket, "contact", "add", "bob", "fastn1secret").CombinedOutput()
	if code := exitCodeOf(err); code != strconv.Itoa(exitNoDaemon) {
		t.Errorf("exit code %s\n%s", code, out)
	}
	if err := listen.Wait(); err != nil {
		t.Errorf("it got what was sent: %v\n%s", err, out)
	}
}

func exitCodeOf(err error) string {
	if exit, ok := err.(*exec.ExitError); ok {
		return strconv.Itoa(exit.ExitCode())
	}
	return "0"
}
