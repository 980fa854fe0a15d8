package ipc_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

// lateListener hands out its connection when it is closed, as one does that was
// about to return it.
type lateListener struct {
	net.Listener
	asked, closed chan struct{} // asked holds one for each Accept
	close         func()
	late          chan net.Conn
}

func (l *lateListener) Accept() (net.Conn, error) {
	l.asked <- struct{}{}
	<-l.closed
	select {
	case c := <-l.late:
		return c, nil
	default:
		return nil, net.ErrClosed
	}
}

func (l *lateListener) Close() error { l.close(); return nil }

// A connection that was taken while the server closed is told that nothing was done.
func TestTakenTooLate(t *testing.T) {
	testutil.LeakCheck(t)
	path := ipctest.Socket(t)
	real, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, `{"id":"1","type":"hello"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	taken, err := real.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l := &lateListener{Listener: real, asked: make(chan struct{}, 2), closed: make(chan struct{}), late: make(chan net.Conn, 1)}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	l.late <- taken
	stop := ipctest.Serve(t, l, ipctest.NewBackend(), ipc.Options{})
	<-l.asked
	stop()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, `"id":null`) || !strings.Contains(line, `"code":"unavailable"`) {
		t.Errorf("told %q, %v", line, err)
	}
}
