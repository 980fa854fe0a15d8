package client_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// A process that is not trusted gets nothing, by no kind of request.
func TestUntrustedListenerGetsNothing(t *testing.T) {
	testutil.LeakCheck(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var asked uint32
	c := client.New(path, client.Options{Trust: func(uid uint32) bool { asked = uid; return false }})
	defer c.Close()
	for kind, request := range map[string]func() error{
		"call":      func() error { _, err := c.Call(limited(t), echo("x")); return err },
		"stream":    func() error { _, err := c.Stream(limited(t), echo("x")); return err },
		"listen":    func() error { _, err := c.Listen(limited(t), client.ListenOptions{Protocol: "X"}); return err },
		"subscribe": func() error { _, err := c.Subscribe(limited(t), api.SubscribeArgs{}); return err },
	} {
		got := make(chan int, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				got <- -1
				return
			}
			defer conn.Close()
			n, _ := conn.Read(make([]byte, 1))
			got <- n
		}()
		e := wantCode(t, request(), api.CodeUnavailable)
		if n := <-got; n != 0 {
			t.Errorf("%s: %d bytes reached it", kind, n)
		}
		if asked != uint32(os.Getuid()) || !strings.Contains(e.Message, "user "+strconv.Itoa(os.Getuid())+" ") || e.Hint == "" {
			t.Errorf("%s: asked for %d, error %q, hint %q", kind, asked, e.Message, e.Hint)
		}
	}
}
