package ipc_test

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/ipc"
)

// bareClients are file descriptors only, so that what is measured is the server's.
func bareClients(t *testing.T, path string, n int) []int {
	t.Helper()
	fds := make([]int, n)
	for i := range fds {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
	}
	return fds
}

// An idle client costs at most 20 KiB, also after a large request.
func TestIdleCost(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	const n = 300
	fds := bareClients(t, path, 1)
	talk := func(fd int, line string) {
		t.Helper()
		for rest := []byte(line + "\n"); len(rest) > 0; {
			m, err := unix.Write(fd, rest)
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[m:]
		}
		buf := make([]byte, 200<<10)
		for got := 0; ; {
			m, err := unix.Read(fd, buf)
			if err != nil || m == 0 {
				t.Fatalf("read %d: %v", m, err)
			}
			if got += m; buf[m-1] == '\n' {
				return
			}
		}
	}
	big := `{"id":"1","type":"call","target":"self","protocol":"Echo","data":{"message":"` + strings.Repeat("x", 40<<10) + `"}}`
	talk(fds[0], big)
	before := inUse()
	fds = append(fds, bareClients(t, path, n)...)
	for _, fd := range fds {
		talk(fd, `{"id":"1","type":"hello"}`)
		talk(fd, big)
		talk(fd, `{"id":"1","type":"peer.list"}`)
	}
	each := (inUse() - before) / n
	t.Logf("%d bytes for each idle client", each)
	if each > 20<<10 {
		t.Errorf("%d bytes for each idle client, want at most %d", each, 20<<10)
	}
	if each < 500 {
		t.Errorf("%d bytes are too few, nothing was measured", each)
	}
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
