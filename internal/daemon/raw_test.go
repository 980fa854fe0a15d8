package daemon

import (
	"bufio"
	"encoding/json"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// rawConn is a connection to the control socket without the Go client.
type rawConn struct {
	t testing.TB
	*net.UnixConn
	in *bufio.Reader
}

func (d *testDaemon) raw() *rawConn {
	d.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(d.home, api.HomeSocket))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	return &rawConn{d.t, conn.(*net.UnixConn), bufio.NewReader(conn)}
}

// ask sends one line and gives the one that comes back, as it is.
func (c *rawConn) ask(line string) string {
	c.t.Helper()
	if _, err := c.Write([]byte(line + "\n")); err != nil {
		c.t.Fatal(err)
	}
	answer, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("no answer to %s: %v", line, err)
	}
	return answer
}

func (c *rawConn) status(line string) string {
	c.t.Helper()
	var r api.Response
	if err := json.Unmarshal([]byte(c.ask(line)), &r); err != nil {
		c.t.Fatal(err)
	}
	return r.Status
}
