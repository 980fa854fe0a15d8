package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
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

func wantCode(t testing.TB, err error, code api.Code) *api.Error {
	t.Helper()
	if api.CodeOf(err) != code {
		t.Fatalf("error %v (%s), want %s", err, api.CodeOf(err), code)
	}
	return api.AsError(err)
}

// The client connects anew by itself, also where the daemon's end of the old
// connection was only just closed.
func TestReconnects(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path := ipctest.Socket(t)
	_, stop := ipctest.Start(t, path, b, ipc.Options{})
	c := connect(t, path)
	for range 20 {
		if _, err := c.Call(limited(t), echo("x")); err != nil {
			t.Fatal(err)
		}
		stop()
		e := wantCode(t, func() error { _, err := c.Call(limited(t), echo("x")); return err }(), api.CodeUnavailable)
		if !strings.Contains(e.Message, path) || e.Hint != `start it with "fastn daemon start"` {
			t.Fatalf("error %q, hint %q", e.Message, e.Hint)
		}
		_, stop = ipctest.Start(t, path, b, ipc.Options{})
	}
}

// A request that was sent and not answered may have been done.
func TestOutcomeUnknown(t *testing.T) {
	c, b, s := start(t, ipc.Options{})
	entered := make(chan struct{})
	b.Handle("Slow", router.HandlerFunc(func(ctx context.Context, _ *router.Request) (json.RawMessage, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	failed := make(chan error, 1)
	go func() {
		_, err := c.Call(context.Background(), client.Request{Target: "self", Protocol: "Slow"})
		failed <- err
	}()
	<-entered
	s.Disconnect(uint32(os.Getuid()))
	wantCode(t, <-failed, api.CodeOutcomeUnknown)
	if _, err := c.Call(limited(t), echo("x")); err != nil {
		t.Fatalf("the next request: %v", err)
	}
}

// A daemon that stops answers "unavailable" to what it does not take; the client
// asks the next daemon.
func TestStoppingDaemon(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path := ipctest.Socket(t)
	_, stop := ipctest.Start(t, path, b, ipc.Options{DrainTimeout: patience})
	entered, open := make(chan struct{}), make(chan struct{})
	b.Handle("Slow", router.HandlerFunc(func(ctx context.Context, _ *router.Request) (json.RawMessage, error) {
		close(entered)
		<-open
		return json.RawMessage("1"), nil
	}))
	c := connect(t, path)
	slow := make(chan error, 1)
	go func() {
		_, err := c.Call(context.Background(), client.Request{Target: "self", Protocol: "Slow"})
		slow <- err
	}()
	<-entered
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	for { // until the old daemon has let go of the path
		if _, err := os.Lstat(path); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	ipctest.Start(t, path, b, ipc.Options{})
	if _, err := c.Call(limited(t), echo("x")); err != nil {
		t.Errorf("a request while the old daemon stops: %v", err)
	}
	close(open)
	if err := <-slow; err != nil {
		t.Errorf("the request that the old daemon had taken: %v", err)
	}
	<-stopped
}

func TestDialErrors(t *testing.T) {
	testutil.LeakCheck(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ path, message, hint string }{
		"nothing there": {filepath.Join(dir, "no"), "no such file or directory", `start it with "fastn daemon start"`},
		"no folder":     {filepath.Join(file, "no"), "not a directory", `start it with "fastn daemon start"`},
		"no socket":     {file, "connection refused", `start it with "fastn daemon start"`},
		"too long":      {"/" + strings.Repeat("x", 107), "the path of a socket may have 107 bytes, this has 108", "choose a shorter one with --socket or --home"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client.Dial(limited(t), tc.path, client.Options{})
			e := wantCode(t, err, api.CodeUnavailable)
			if want := "cannot reach the fastn daemon at " + tc.path + ": " + tc.message; e.Message != want || e.Hint != tc.hint {
				t.Errorf("got %q, hint %q\nwant %q, hint %q", e.Message, e.Hint, want, tc.hint)
			}
		})
	}
}

// A refusal of the connection as a whole reaches every kind of request, as it was said.
func TestRefused(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	b.Refuse = api.Errorf(api.CodeNotPermitted, "you are not in group %q", "fastn").WithHint("join")
	path := ipctest.Socket(t)
	ipctest.Start(t, path, b, ipc.Options{})
	for range 20 { // whether the client writes before the daemon closes is chance
		c := connect(t, path)
		_, err := c.Call(limited(t), echo("x"))
		if e := wantCode(t, err, api.CodeNotPermitted); e.Hint != "join" {
			t.Fatalf("error %+v", e)
		}
		_, err = c.Stream(limited(t), echo("x"))
		wantCode(t, err, api.CodeNotPermitted)
		_, err = c.Listen(limited(t), client.ListenOptions{Protocol: "P"})
		wantCode(t, err, api.CodeNotPermitted)
		_, err = c.Subscribe(limited(t), api.SubscribeArgs{})
		wantCode(t, err, api.CodeNotPermitted)
		c.Close()
	}
}

// A daemon that answers nothing holds nobody longer than they wish to wait.
func TestContext(t *testing.T) {
	testutil.LeakCheck(t)
	path := ipctest.Socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // never accepts: connections wait in its backlog
	c := connect(t, path)
	big := client.Request{Target: "self", Protocol: "P", Data: json.RawMessage(`"` + strings.Repeat("x", 900<<10) + `"`)}
	for name, call := range map[string]func(context.Context) error{
		"call":     func(ctx context.Context) error { _, err := c.Call(ctx, echo("x")); return err },
		"big call": func(ctx context.Context) error { _, err := c.Call(ctx, big); return err },
		"stream":   func(ctx context.Context) error { _, err := c.Stream(ctx, echo("x")); return err },
		"listen": func(ctx context.Context) error {
			_, err := c.Listen(ctx, client.ListenOptions{Protocol: "P"})
			return err
		},
		"subscribe": func(ctx context.Context) error { _, err := c.Subscribe(ctx, api.SubscribeArgs{}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			err := call(ctx)
			if code := api.CodeOf(err); code != api.CodeTimeout && code != api.CodeOutcomeUnknown {
				t.Errorf("at the deadline: %v", err)
			}
			ctx, cancel = context.WithCancel(t.Context())
			cancel()
			wantCode(t, call(ctx), api.CodeCancelled)
		})
	}
}

func TestTooLarge(t *testing.T) {
	c, _, _ := start(t, ipc.Options{})
	_, err := c.Call(limited(t), client.Request{Target: "self", Protocol: "Echo", Data: make(json.RawMessage, api.MaxPayload+1)})
	wantCode(t, err, api.CodeTooLarge)
	if _, err := c.Call(limited(t), echo("x")); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestVerbFiles(t *testing.T) {
	c, _, _ := start(t, ipc.Options{})
	f, err := os.Create(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var id api.Identity
	if err := c.Verb(limited(t), api.VerbIdentityExport, api.IdentityArgs{Identity: "other"}, &id, f); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(f.Name())
	if err != nil || string(got) != "key of "+id.ID52+"\n" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	if _, err := f.Stat(); err != nil {
		t.Errorf("the file is the caller's, but %v", err)
	}
}

// Events are told without loss or repetition over restarts of the daemon.
func TestSubscriptionResumes(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path := ipctest.Socket(t)
	_, stop := ipctest.Start(t, path, b, ipc.Options{})
	c := connect(t, path)
	sub, err := c.Subscribe(limited(t), api.SubscribeArgs{})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	stop() // before any event was told
	for i := range uint64(30) {
		b.Events.Publish(api.Event{Kind: "a"})
		if i%10 == 3 {
			stop()
		}
		if i%10 == 5 {
			_, stop = ipctest.Start(t, path, b, ipc.Options{})
			for want := i - i%10 + 1; want <= i+1; want++ {
				e, err := sub.Next(limited(t))
				if err != nil || e.Cursor != want || e.Gap {
					t.Fatalf("event %+v, %v; want cursor %d", e, err, want)
				}
			}
		}
		if i%10 > 5 {
			if e, err := sub.Next(limited(t)); err != nil || e.Cursor != i+1 || e.Gap {
				t.Fatalf("event %+v, %v; want cursor %d", e, err, i+1)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = sub.Next(ctx)
	wantCode(t, err, api.CodeTimeout)
	b.Events.Publish(api.Event{Kind: "a"})
	if e, err := sub.Next(limited(t)); err != nil || e.Cursor != 31 {
		t.Fatalf("after a wait that timed out: %+v, %v", e, err)
	}
}

// However often the daemon restarts under clients, its socket held by systemd,
// none is left in doubt about a request: it was answered, or nothing was done.
func TestRestartsLeaveNoDoubt(t *testing.T) {
	testutil.LeakCheck(t)
	path := ipctest.Socket(t)
	held, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	file, err := held.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() { callOn(ctx, t, path, i%2 == 0) })
	}
	shared := client.New(path, client.Options{})
	defer shared.Close()
	for range 8 {
		clients.Go(func() { callWith(ctx, t, shared) })
	}
	b := ipctest.NewBackend()
	for range testutil.Rounds(30, 1000) {
		l, err := net.FileListener(file)
		if err != nil {
			t.Fatal(err)
		}
		stop := ipctest.Serve(t, l, b, ipc.Options{})
		for range 20 {
			limitedCall(t, path)
		}
		stop()
	}
	// The last clients have nobody to wait for.
	l, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	stop := ipctest.Serve(t, l, b, ipc.Options{})
	cancel()
	clients.Wait()
	stop()
}

func limitedCall(t *testing.T, path string) {
	c := client.New(path, client.Options{})
	defer c.Close()
	if _, err := c.Call(limited(t), echo("x")); err != nil {
		t.Errorf("%v (%s)", err, api.CodeOf(err))
	}
}

// callOn calls until ctx ends, each time on a connection of its own if alone.
func callOn(ctx context.Context, t *testing.T, path string, alone bool) {
	c := client.New(path, client.Options{})
	defer func() { c.Close() }()
	for ctx.Err() == nil {
		callOnce(ctx, t, c)
		if alone {
			c.Close()
			c = client.New(path, client.Options{})
		}
	}
}

// callWith calls until ctx ends, beside others on the same connection.
func callWith(ctx context.Context, t *testing.T, c *client.Client) {
	for ctx.Err() == nil {
		callOnce(ctx, t, c)
	}
}

func callOnce(ctx context.Context, t *testing.T, c *client.Client) {
	_, err := c.Call(ctx, echo("x"))
	// These daemons live so short that a call may meet the end of two.
	if err != nil && api.CodeOf(err) != api.CodeUnavailable && ctx.Err() == nil {
		t.Errorf("%v (%s)", err, api.CodeOf(err))
	}
}

// Who waits when the daemon stops, with the first request of all, goes on waiting at
// the next daemon.
func TestWaitingOutlivesTheDaemon(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path := ipctest.Socket(t)
	_, stop := ipctest.Start(t, path, b, ipc.Options{DrainTimeout: patience})
	waiting, next := make(chan struct{}, 2), make(chan struct{})
	wait := func(answer any) ipctest.VerbFunc {
		return func(ctx context.Context, _ ipc.Caller, _ *api.Request, _ []*os.File) (any, error) {
			select {
			case <-next:
				return answer, nil
			default:
			}
			waiting <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}
	b.HandleVerb(api.VerbInboxList, wait(api.InboxPage{Messages: []api.InboxMessage{{MessageID: "1"}}}))
	b.HandleVerb(api.VerbOutboxWait, wait(api.OutboxMessage{State: api.StateDelivered}))
	enough := errors.New("enough")
	failed := make(chan error, 2)
	go func() {
		c := client.New(path, client.Options{})
		defer c.Close()
		failed <- c.Follow(limited(t), api.InboxListArgs{}, func(api.InboxMessage) error { return enough })
	}()
	go func() {
		c := client.New(path, client.Options{})
		defer c.Close()
		_, err := c.WaitFinal(limited(t), "123e4567-e89b-42d3-a456-426614174000")
		if err == nil {
			err = enough
		}
		failed <- err
	}()
	<-waiting
	<-waiting
	stop()
	close(next)
	ipctest.Start(t, path, b, ipc.Options{})
	for range 2 {
		if err := <-failed; err != enough {
			t.Error(err)
		}
	}
	c := client.New(path+".none", client.Options{})
	defer c.Close()
	wantCode(t, c.Follow(limited(t), api.InboxListArgs{}, nil), api.CodeUnavailable)
}
