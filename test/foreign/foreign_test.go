// Package foreign drives the real daemon from another language.
package foreign

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/test/process"
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
	bin := t.TempDir()
	if err := process.Build(t.Context(), bin, "./cmd/fastnd"); err != nil {
		t.Fatal(err)
	}
	d, err := process.Start(context.WithoutCancel(t.Context()), bin, process.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d.Socket
}
