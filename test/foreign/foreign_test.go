// Package foreign drives the daemon from another language.
package foreign

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

// socketEnv names the socket of a daemon to drive instead of one made here.
const socketEnv = "FASTN_FOREIGN_SOCKET"

const checks = 9

func TestPythonClient(t *testing.T) {
	testutil.LeakCheck(t)
	path := os.Getenv(socketEnv)
	if path == "" {
		path = ipctest.Socket(t)
		ipctest.Start(t, path, ipctest.NewBackend(), ipc.Options{})
	}
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
