// Package foreign drives the real daemon from another language.
package foreign

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

const checks = 9

func TestPythonClient(t *testing.T) {
	path := startDaemon(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "python3", "-B", "drive.py", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "ok "); n != checks {
		t.Errorf("%d checks were done, want %d:\n%s", n, checks, out)
	}
}

// startDaemon builds and runs fastnd in a home of its own and returns its socket.
func startDaemon(t *testing.T) string {
	t.Helper()
	home, err := os.MkdirTemp("", "fastn-foreign") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	if err := os.WriteFile(filepath.Join(home, "fastn.toml"), []byte("[p2p]\nlisten = [\"127.0.0.1\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "fastnd")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/fastnd").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(bin, "--home", home)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(home, api.HomeSocket)
	c := client.New(path, client.Options{})
	defer c.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err = c.Hello(t.Context()); err == nil {
			return path
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
