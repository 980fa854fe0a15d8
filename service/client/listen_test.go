package client_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// serve answers calls with their own data, fails those without any, and reverses
// nothing: streams are echoed.
func serve(ctx context.Context, i *client.Incoming) {
	switch {
	case i.Kind == "stream":
		s, err := i.Accept(ctx)
		if err != nil {
			return // the caller has gone away
		}
		_, _ = io.Copy(s, s) // what is missing shows at the caller
		_ = s.CloseWrite()
		s.Close()
	case len(i.Data) == 0:
		_ = i.Fail(ctx, &api.Error{Message: "nothing to say", Hint: "say something"})
	default:
		_ = i.Reply(ctx, i.Data)
	}
}

func TestListen(t *testing.T) {
	c, _, _ := start(t, ipc.Options{})
	l, err := c.Listen(limited(t), client.ListenOptions{Protocol: "Mine"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Listen(limited(t), client.ListenOptions{Protocol: "Mine"}); api.CodeOf(err) != api.CodeConflict {
		t.Fatalf("a second listener: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- l.Serve(ctx, serve) }()

	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			got, err := c.Call(limited(t), client.Request{Target: "self", Protocol: "Mine", Data: json.RawMessage(`{"a":[1.0]}`)})
			if err != nil || string(got) != `{"a":[1.0]}` {
				t.Errorf("call: %s, %v", got, err)
			}
		})
	}
	wg.Wait()
	_, err = c.Call(limited(t), client.Request{Target: "self", Protocol: "Mine"})
	if e := wantCode(t, err, api.CodeHandlerFailed); e.Message != "nothing to say" || e.Hint != "say something" || len(e.Peer) != 52 {
		t.Errorf("error %+v", e)
	}
	s, err := c.Stream(limited(t), client.Request{Target: "self", Protocol: "Mine"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("bytes")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != "bytes" {
		t.Errorf("stream gave %q, %v", got, err)
	}
	if res, err := s.Result(limited(t)); err != nil || !res.Clean {
		t.Errorf("result %+v, %v", res, err)
	}
	s.Close()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	l.Close()
	for api.CodeOf(err) != api.CodeProtocolUnavailable {
		_, err = c.Call(limited(t), client.Request{Target: "self", Protocol: "Mine"})
		if code := api.CodeOf(err); code != api.CodeOutcomeUnknown { // the daemon had not noticed yet
			wantCode(t, err, api.CodeProtocolUnavailable)
		}
	}
}

// A stream that is closed before its end is an abort to the other side, though
// raw bytes cannot tell it.
func TestAbortIsTold(t *testing.T) {
	c, _, _ := start(t, ipc.Options{})
	l, err := c.Listen(limited(t), client.ListenOptions{Protocol: "Mine", Kinds: []string{"stream"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	opened := make(chan *client.Stream, 1)
	go func() {
		s, err := c.Stream(context.Background(), client.Request{Target: "self", Protocol: "Mine"})
		if err != nil {
			t.Error(err)
		}
		opened <- s
	}()
	in, err := l.Next(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := in.Accept(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	ours := <-opened
	if _, err := ours.Write([]byte("half of it")); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	if _, err := io.ReadAll(theirs); err != nil && api.CodeOf(err) != api.CodeAborted {
		t.Fatal(err)
	}
	res, err := theirs.Result(limited(t))
	if err != nil || res.Clean || res.Code != api.CodeAborted {
		t.Errorf("the other side's result is %+v, %v; want aborted", res, err)
	}
	theirs.Close()
}

// The registration ends with its connection, and the program is told.
func TestListenerLosesDaemon(t *testing.T) {
	c, _, s := start(t, ipc.Options{DrainTimeout: 20 * time.Millisecond})
	l, err := c.Listen(limited(t), client.ListenOptions{Protocol: "Mine"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	entered, ended := make(chan struct{}), make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- l.Serve(context.Background(), func(ctx context.Context, _ *client.Incoming) {
			close(entered)
			<-ctx.Done()
			close(ended)
		})
	}()
	go func() {
		_, _ = c.Call(context.Background(), client.Request{Target: "self", Protocol: "Mine"}) // cut off below
	}()
	<-entered
	s.Close()
	<-ended
	wantCode(t, <-served, api.CodeUnavailable)
}

// A caller that gives up ends the handler's context.
func TestCallerGivesUp(t *testing.T) {
	c, _, _ := start(t, ipc.Options{})
	l, err := c.Listen(limited(t), client.ListenOptions{Protocol: "Mine"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	failed := make(chan error, 1)
	go func() {
		_, err := c.Call(context.Background(), client.Request{Target: "self", Protocol: "Mine", Timeout: 300 * time.Millisecond})
		failed <- err
	}()
	in, err := l.Next(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	<-in.Done()
	wantCode(t, <-failed, api.CodeTimeout)
	wantCode(t, in.Reply(limited(t), json.RawMessage("1")), api.CodeNotFound)
}

// A message is taken by Reply, which ends it, and told as failed by Fail.
func TestListenForMessages(t *testing.T) {
	c, b, _ := start(t, ipc.Options{})
	l, err := c.Listen(limited(t), client.ListenOptions{Protocol: "Mine", Kinds: []string{"message"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	self, err := b.Identity(limited(t), ipc.Caller{UID: uint32(os.Geteuid())}, "")
	if err != nil {
		t.Fatal(err)
	}
	tell := func() chan error {
		answered := make(chan error, 1)
		go func() {
			_, err := b.Route(limited(t), &router.Request{From: self, To: self, Protocol: "Mine", Instance: api.DefaultInstance,
				Kind: router.Message, Payload: json.RawMessage(`{"n":1}`), MessageID: "123e4567-e89b-42d3-a456-426614174000"})
			answered <- err
		}()
		return answered
	}
	next := func() *client.Incoming {
		t.Helper()
		i, err := l.Next(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		if i.Kind != "message" || string(i.Data) != `{"n":1}` || i.MessageID != "123e4567-e89b-42d3-a456-426614174000" {
			t.Errorf("told of %+v", i.Incoming)
		}
		return i
	}
	answered := tell()
	i := next()
	if err := i.Fail(limited(t), &api.Error{Message: "not now"}); err != nil {
		t.Error(err)
	}
	wantCode(t, <-answered, api.CodeHandlerFailed)
	answered = tell()
	i = next()
	if err := i.Reply(limited(t), nil); err != nil {
		t.Error(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("taken: %v", err)
	}
	select {
	case <-i.Done():
	default:
		t.Error("a message that was taken is not done")
	}
}

// Who is patient is registered once the daemon is there; others are told that it
// is not.
func TestListenPatiently(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path := ipctest.Socket(t)
	_, stop := ipctest.Start(t, path, b, ipc.Options{})
	c := connect(t, path)
	l, err := c.Listen(limited(t), client.ListenOptions{Protocol: "Mine"})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	_, err = l.Next(limited(t))
	wantCode(t, err, api.CodeUnavailable)
	l.Close()
	_, err = c.Listen(limited(t), client.ListenOptions{Protocol: "Mine"})
	wantCode(t, err, api.CodeUnavailable)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := c.Listen(ctx, client.ListenOptions{Protocol: "Mine", Patient: true}); err == nil {
		t.Fatal("registered without a daemon")
	}
	dying, err := net.Listen("unix", path) // it takes a connection, and is gone
	if err != nil {
		t.Fatal(err)
	}
	registered := make(chan error, 1)
	go func() {
		l, err := c.Listen(limited(t), client.ListenOptions{Protocol: "Mine", Patient: true})
		if err == nil {
			defer l.Close()
			_, err = c.Listen(limited(t), client.ListenOptions{Protocol: "Mine"})
			if api.CodeOf(err) == api.CodeConflict {
				err = nil
			}
		}
		registered <- err
	}()
	conn, err := dying.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil { // asked, and not answered
		t.Fatal(err)
	}
	dying.Close()
	conn.Close()
	ipctest.Start(t, path, b, ipc.Options{})
	if err := <-registered; err != nil {
		t.Error(err)
	}
}
