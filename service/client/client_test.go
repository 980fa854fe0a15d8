package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

const patience = 20 * time.Second

// start serves a Backend and returns a client of it.
func start(t testing.TB, o ipc.Options) (*client.Client, *ipctest.Backend, *ipc.Server) {
	t.Helper()
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path := ipctest.Socket(t)
	s, _ := ipctest.Start(t, path, b, o)
	return connect(t, path), b, s
}

func connect(t testing.TB, path string) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), path, client.Options{Name: "test/1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func limited(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func echo(message string) client.Request {
	data, _ := json.Marshal(map[string]string{"message": message})
	return client.Request{Target: api.TargetSelf, Protocol: api.ProtocolEcho, Data: data}
}

func TestCallAndVerbs(t *testing.T) {
	c, _, _ := start(t, ipc.Options{})
	h, err := c.Hello(limited(t))
	if err != nil || h.Version != api.Version {
		t.Fatalf("hello: %+v, %v", h, err)
	}
	got, err := c.Call(limited(t), echo("hello"))
	if err != nil || string(got) != `{"echoed":"Echo: hello"}` {
		t.Fatalf("call: %s, %v", got, err)
	}
	_, err = c.Call(limited(t), echo(""))
	if api.CodeOf(err) != api.CodeBadRequest {
		t.Fatalf("empty message: %v", err)
	}
	var ids []api.Identity
	if err := c.Verb(limited(t), api.VerbIdentityList, nil, &ids); err != nil || len(ids) != 2 {
		t.Fatalf("identity.list: %v, %v", ids, err)
	}
}

func TestStreamHalfClose(t *testing.T) {
	c, _, _ := start(t, ipc.Options{})
	s, err := c.Stream(limited(t), client.Request{Target: api.TargetSelf, Protocol: api.ProtocolEcho})
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = io.Copy(s, bytes.NewReader(sent)) // a failure shows in what comes back
		_ = s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("echoed %d bytes of %d, %v", len(got), len(sent), err)
	}
	res, err := s.Result(limited(t))
	if err != nil || !res.Clean {
		t.Fatalf("result %+v, %v", res, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
