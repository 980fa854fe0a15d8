package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// patience bounds what a test waits for; the machine may be very busy.
const patience = 30 * time.Second

const loopbackOnly = "[p2p]\nlisten = [\"127.0.0.1\"]\n"

// opts are those of start; the zero value is a new home with default settings.
type opts struct {
	home   string // of an earlier daemon
	config string // more of fastn.toml
	clock  *clock
}

// clock is a daemon's, which a test can put forward.
type clock struct{ ahead, passed atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// forward sets it.
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// pass has time pass.
func (c *clock) pass(d time.Duration) {
	c.passed.Add(int64(d))
	c.forward(d)
}

func (c *clock) uptime() time.Duration { return time.Duration(c.passed.Load()) }

// testDaemon is a whole fastnd in this process, with a client of its socket.
// The kernel tells the daemon that its client is the daemon's own process: it is
// no administrator and holds no connection's budget. See admin.
type testDaemon struct {
	*Daemon
	t    testing.TB
	home string
	c    *client.Client
	log  *logBuffer
	hup  chan os.Signal // what Run takes for SIGHUP
	stop func()
}

// logBuffer keeps what a daemon logs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newHome is a folder whose path leaves room for a socket's.
func newHome(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// start runs a daemon until stop is called or the test ends. The caller has
// called testutil.LeakCheck before.
func start(t testing.TB, o opts) *testDaemon {
	t.Helper()
	d := &testDaemon{t: t, home: o.home, log: new(logBuffer), hup: make(chan os.Signal)}
	if d.home == "" {
		d.home = newHome(t)
	}
	d.configure(loopbackOnly + o.config)
	options := d.options()
	if o.clock != nil {
		options.now, options.uptime = o.clock.now, o.clock.uptime
	}
	var err error
	d.Daemon, err = New(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- d.Run(ctx, d.hup) }()
	d.stop = sync.OnceFunc(func() {
		if d.c != nil {
			_ = d.c.Close()
		}
		cancel()
		if err := errors.Join(<-ran, d.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", d.home, d.log)
		}
	})
	t.Cleanup(d.stop)
	d.c = d.as("")
	return d
}

func (d *testDaemon) options() Options {
	return Options{Home: d.home, Version: "test", Stderr: d.log}
}

func (d *testDaemon) configure(text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.home, homeConfig), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// again starts a daemon in the home of one that was stopped.
func (d *testDaemon) again(t testing.TB, o opts) *testDaemon {
	t.Helper()
	d.stop()
	o.home = d.home
	return start(t, o)
}

// as is a client that speaks for an identity.
func (d *testDaemon) as(identity string) *client.Client {
	d.t.Helper()
	c, err := client.Dial(limited(d.t), filepath.Join(d.home, api.HomeSocket), client.Options{Name: "test/1", From: identity})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	return c
}

func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// verb does a verb that must succeed.
func verb[T any](t testing.TB, c *client.Client, name string, args any) T {
	t.Helper()
	var out T
	if err := c.Verb(limited(t), name, args, &out); err != nil {
		t.Fatalf("%s %+v: %v", name, args, full(err))
	}
	return out
}

// refused does a verb that must fail with code, and gives the error.
func refused(t testing.TB, c *client.Client, code api.Code, name string, args any) *api.Error {
	t.Helper()
	return wantCode(t, c.Verb(limited(t), name, args, nil), code)
}

func wantCode(t testing.TB, err error, code api.Code) *api.Error {
	t.Helper()
	if api.CodeOf(err) != code {
		t.Fatalf("got %v; want code %s", full(err), code)
	}
	return api.AsError(err)
}

func wantText(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in %q", p, text)
		}
	}
}

func full(err error) string {
	if err == nil {
		return "no error"
	}
	e := api.AsError(err)
	return string(e.Code) + ": " + e.Message + " (hint: " + e.Hint + ")"
}

// doneAs does a verb as the given caller, without the socket.
func (d *testDaemon) doneAs(c ipc.Caller, name string, args any, files ...*os.File) (any, error) {
	d.t.Helper()
	return d.from(c, "", name, args, files...)
}

func (d *testDaemon) from(c ipc.Caller, from, name string, args any, files ...*os.File) (any, error) {
	d.t.Helper()
	r := &api.Request{ID: "1", Type: name, From: from}
	if args != nil {
		var err error
		if r.Data, err = json.Marshal(args); err != nil {
			d.t.Fatal(err)
		}
	}
	return (*backend)(d.Daemon).Verb(limited(d.t), c, r, files)
}

var admin = ipc.Caller{UID: uint32(os.Geteuid()), User: "root", Admin: true}

func (d *testDaemon) status() api.Status { return d.Status(d.t.Context(), admin) }

// own is the identity of the daemon's client.
func (d *testDaemon) own() api.Identity {
	d.t.Helper()
	return verb[api.Identity](d.t, d.c, api.VerbIdentityShow, nil)
}

func (d *testDaemon) contacts() []string {
	d.t.Helper()
	return contactNames(d.t, d.c)
}

func contactNames(t testing.TB, c *client.Client) []string {
	t.Helper()
	names := []string{}
	for _, c := range verb[[]api.Contact](t, c, api.VerbContactList, nil) {
		names = append(names, c.Name)
	}
	return names
}

func (d *testDaemon) invite(args api.InviteArgs) string {
	d.t.Helper()
	return verb[api.Invitation](d.t, d.c, api.VerbContactInvite, args).Ticket
}

// meet makes contacts of two daemons' identities: b names a's "alice", a names
// b's "bob".
func meet(t testing.TB, a, b *testDaemon) {
	t.Helper()
	ticket := a.invite(api.InviteArgs{For: "bob"})
	verb[api.Contact](t, b.c, api.VerbContactAdd, api.ContactAddArgs{Name: "alice", Ticket: ticket})
}

// pair is two daemons whose identities are contacts: see meet.
func pair(t testing.TB) (alice, bob *testDaemon) {
	t.Helper()
	alice, bob = start(t, opts{}), start(t, opts{})
	meet(t, alice, bob)
	return alice, bob
}

func to(target, protocol string, data any) client.Request {
	q := client.Request{Target: target, Protocol: protocol}
	if data != nil {
		q.Data, _ = json.Marshal(data) // of a test's own making
	}
	return q
}

var hello = map[string]string{"message": "hello"}

// wantEcho calls Echo of target.
func wantEcho(t testing.TB, c *client.Client, target string) {
	t.Helper()
	got, err := c.Call(limited(t), to(target, api.ProtocolEcho, hello))
	if err != nil || string(got) != `{"echoed":"Echo: hello"}` {
		t.Fatalf("Echo of %s: %s, %s", target, got, full(err))
	}
}

// wantNoEcho calls Echo of target, which must fail with code.
func wantNoEcho(t testing.TB, c *client.Client, target string, code api.Code) *api.Error {
	t.Helper()
	_, err := c.Call(limited(t), to(target, api.ProtocolEcho, hello))
	return wantCode(t, err, code)
}

// serve has handle serve a protocol until the test ends or stop is called.
func serve(t testing.TB, c *client.Client, protocol string, handle func(context.Context, *client.Incoming)) (stop func()) {
	t.Helper()
	l, err := c.Listen(limited(t), client.ListenOptions{Protocol: protocol})
	if err != nil {
		t.Fatal(full(err))
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = l.Serve(ctx, handle) // fails when the daemon is stopped first
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		_ = l.Close()
		<-served
	})
	t.Cleanup(stop)
	return stop
}

// eventually waits for what another goroutine or daemon is about to do.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

// receive waits for a value from a goroutine of the test.
func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("in vain waited for: %s", what)
		panic("unreachable")
	}
}

func wantNames(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %q, want %q", what, got, want)
	}
}
