package ipc_test

import (
	"io"
	"testing"

	"github.com/fastn-stack/fastnd/internal/ipc"
)

func TestSeedShapes(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	c.send(`{"id":"uuid","type":"call","target":"self","protocol":"Echo","data":{"message":"hello"}}`)
	if got, want := c.line(), `{"id":"uuid","status":"ok","data":{"echoed":"Echo: hello"}}`+"\n"; got != want {
		t.Errorf("call answered %q, want %q", got, want)
	}
	c.send(`{"id":"uuid","type":"call","target":"nobody","protocol":"Echo"}`)
	if got, want := c.line(), `{"id":"uuid","status":"error","data":"no contact \"nobody\"","code":"not_found"}`+"\n"; got != want {
		t.Errorf("call answered %q, want %q", got, want)
	}
	c.send(`{"id":"uuid","type":"stream","target":"self","protocol":"Echo","data":{"command":"interactive_shell"}}`)
	if got, want := c.line(), `{"id":"uuid","status":"streaming"}`+"\n"; got != want {
		t.Fatalf("stream answered %q, want %q", got, want)
	}
	if _, err := io.WriteString(c, "raw bytes"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c.r)
	if err != nil || string(got) != "raw bytes" {
		t.Fatalf("stream gave %q, %v", got, err)
	}
}

func TestHello(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	c.want(c.ask(`{"id":"1","type":"hello","data":{"client":"x/1","version":1}}`), "1", "ok")
	c.want(c.ask(`{"id":"2","type":"hello","data":{"version":2}}`), "2", "unsupported")
	c.want(c.ask(`{"id":"3","type":"hello","data":{"versoin":1}}`), "3", "bad_request")
	c.want(c.ask(`{"id":"4","type":"identity.list"}`), "4", "ok")
}
