package ipctest

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/fastn-stack/fastnd/internal/ipc"
)

// Socket is a path for a socket that is short enough for sockaddr_un.
func Socket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ipc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "daemon.sock")
}

// Start serves b on path until stop, which may be called again and is called at
// the end of the test.
func Start(t testing.TB, path string, b ipc.Backend, o ipc.Options) (s *ipc.Server, stop func()) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, l, b, o)
}

// Serve is Start on a listener that another one's socket is behind.
func Serve(t testing.TB, l net.Listener, b ipc.Backend, o ipc.Options) (stop func()) {
	t.Helper()
	_, stop = serve(t, l, b, o)
	return stop
}

func serve(t testing.TB, l net.Listener, b ipc.Backend, o ipc.Options) (s *ipc.Server, stop func()) {
	s = ipc.New(b, slog.New(slog.DiscardHandler), o)
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	stop = sync.OnceFunc(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}
