package ipc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// gate is a handler that answers when it is told to.
type gate struct{ entered, open chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}, 100), make(chan struct{})} }

func (g *gate) Serve(ctx context.Context, _ *router.Request) (json.RawMessage, error) {
	g.entered <- struct{}{}
	select {
	case <-g.open:
		return json.RawMessage(`"done"`), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close lets answers in flight finish, refuses new requests so that they may go
// elsewhere, and does not wait for what never ends.
func TestCloseDrains(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	g := newGate()
	b.Handle("Slow", g)
	path := ipctest.Socket(t)
	_, stop := ipctest.Start(t, path, b, ipc.Options{DrainTimeout: patience})
	c, idle, l, sub := dial(t, path), dial(t, path), dial(t, path), dial(t, path)
	idle.works()
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	sub.want(sub.ask(`{"id":"S","type":"subscribe"}`), "S", "ok")
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Slow"}`)
	<-g.entered
	closed := make(chan struct{})
	go func() { stop(); close(closed) }()
	idle.eof()
	l.eof()
	sub.eof()
	c.want(c.ask(`{"id":"2","type":"hello"}`), "2", "unavailable")
	close(g.open)
	c.want(c.answer(), "1", "ok")
	c.eof()
	<-closed
}

// A program that was told of a call replies to it while the daemon stops; nothing
// new comes to it.
func TestCloseLetsProgramsReply(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path := ipctest.Socket(t)
	_, stop := ipctest.Start(t, path, b, ipc.Options{DrainTimeout: patience})
	l, c, streaming, probe := dial(t, path), dial(t, path), dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Mine"}`, `{"id":"2","type":"call","target":"self","protocol":"Mine"}`)
	first, second := l.incoming("L"), l.incoming("L")
	streaming.send(`{"id":"s","type":"stream","target":"self","protocol":"Mine"}`)
	l.incoming("L")
	closed := make(chan struct{})
	go func() { stop(); close(closed) }()
	probe.eof()
	streaming.want(streaming.answer(), "s", "protocol_unavailable") // raw connections are not waited for
	l.want(l.ask(`{"id":"h","type":"hello"}`), "h", "unavailable")
	to, err := identity.ParseID(first.To)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Route(t.Context(), &router.Request{From: to, To: to, Protocol: "Mine", Instance: "default", Kind: router.Call})
	if api.CodeOf(err) != api.CodeProtocolUnavailable {
		t.Errorf("a new call gets %v", err)
	}
	for _, in := range []api.Incoming{first, second} {
		l.want(l.ask(`{"id":"r","type":"reply","incoming":"`+in.Incoming+`","data":"done"}`), "r", "ok")
		if a := c.answer(); a.Status != api.StatusOK || string(a.Data) != `"done"` {
			t.Fatalf("answer %+v", a)
		}
	}
	c.eof()
	l.eof()
	<-closed
}

// Programs that do not reply, or cannot, hold up a stop no longer than others.
func TestCloseAndNoReply(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path := ipctest.Socket(t)
	_, stop := ipctest.Start(t, path, b, ipc.Options{DrainTimeout: 200 * time.Millisecond})
	l, half, c := dial(t, path), dial(t, path), dial(t, path)
	for i, serving := range []*raw{l, half} {
		protocol := fmt.Sprint("P", i)
		serving.want(serving.ask(`{"id":"L","type":"listen","protocol":"`+protocol+`"}`), "L", "ok")
		c.send(`{"id":"` + protocol + `","type":"call","target":"self","protocol":"` + protocol + `"}`)
		serving.incoming("L")
	}
	half.CloseWrite()
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	c.want(c.answer(), "P1", "outcome_unknown")
	<-stopped
	for _, serving := range []*raw{l, half} { // it may be told of the caller's end before its own
		if _, err := io.Copy(io.Discard, serving.r); err != nil {
			t.Error(err)
		}
	}
}

// What does not finish in time is cancelled.
func TestCloseIsBounded(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	g := newGate()
	b.Handle("Slow", g)
	path := ipctest.Socket(t)
	s, stop := ipctest.Start(t, path, b, ipc.Options{DrainTimeout: 20 * time.Millisecond})
	c, streaming := dial(t, path), dial(t, path)
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Slow"}`)
	<-g.entered
	streaming.want(streaming.ask(`{"id":"1","type":"stream","target":"self","protocol":"Echo"}`), "1", "streaming")
	stop()
	s.Close() // again
	c.eof()
	streaming.eof()
	for _, budget := range []string{"connections", ipc.BudgetRequests, ipc.BudgetStreams} {
		if n := b.InUse(budget); n != 0 {
			t.Errorf("%d %s are in use after Close", n, budget)
		}
	}
}

// Nothing is lost between requests that are under way and a Close: each gets its
// answer, or is told that nothing was done.
func TestCloseUnderLoad(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path := ipctest.Socket(t)
	_, stop := ipctest.Start(t, path, b, ipc.Options{DrainTimeout: patience})
	var wg sync.WaitGroup
	var ready sync.WaitGroup
	for range 8 {
		c := dial(t, path)
		ready.Add(1)
		wg.Go(func() {
			var once sync.Once
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(c, `{"id":"%d","type":"call","target":"self","protocol":"Echo","data":{"message":"x"}}`+"\n", i); err != nil {
					return // sent nothing: the connection had ended
				}
				line, err := c.r.ReadString('\n')
				if err != nil {
					return // the request came behind the end
				}
				if !strings.Contains(line, "Echo: x") && !strings.Contains(line, string(api.CodeUnavailable)) {
					t.Errorf("answer %q", line)
				}
				once.Do(ready.Done)
			}
		})
	}
	ready.Wait()
	stop()
	wg.Wait()
}

func TestServeAfterClose(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path := ipctest.Socket(t)
	_, stop := ipctest.Start(t, path, b, ipc.Options{})
	stop()
	_, stop = ipctest.Start(t, path, b, ipc.Options{})
	dial(t, path).works()
	stop()
}

func TestManyRequests(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	g := newGate()
	b.Handle("Slow", g)
	c := dial(t, path)
	const n = 50
	for i := range n {
		c.send(fmt.Sprintf(`{"id":"slow%d","type":"call","target":"self","protocol":"Slow"}`, i))
		c.send(fmt.Sprintf(`{"id":"fast%d","type":"call","target":"self","protocol":"Echo","data":{"message":"%d"}}`, i, i))
	}
	seen := make(map[string]bool)
	for range n { // all fast ones are answered before any slow one
		a := c.answer()
		seen[*a.ID] = strings.HasPrefix(*a.ID, "fast") && a.Status == "ok"
	}
	close(g.open)
	for range n {
		a := c.answer()
		seen[*a.ID] = strings.HasPrefix(*a.ID, "slow") && a.Status == "ok"
	}
	for id, ok := range seen {
		if !ok {
			t.Errorf("%s came out of turn or failed", id)
		}
	}
	if len(seen) != 2*n {
		t.Errorf("%d answers, want %d", len(seen), 2*n)
	}
}

// A connection that ends cancels what it had in flight.
func TestConnectionEndCancels(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	cancelled := make(chan error, 1)
	entered := make(chan struct{})
	b.Handle("Slow", router.HandlerFunc(func(ctx context.Context, _ *router.Request) (json.RawMessage, error) {
		close(entered)
		<-ctx.Done()
		cancelled <- context.Cause(ctx)
		return nil, ctx.Err()
	}))
	c := dial(t, path)
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Slow"}`)
	<-entered
	c.Close()
	if err := <-cancelled; api.CodeOf(err) != api.CodeCancelled {
		t.Errorf("cancelled because of %v", err)
	}
}

func TestSubscribe(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	b.Events.Publish(api.Event{Kind: "before", Text: "not seen"})
	if a := c.want(c.ask(`{"id":"s","type":"subscribe"}`), "s", "ok"); string(a.Data) != `{"cursor":1}` {
		t.Errorf("answer %s", a.Data)
	}
	c.want(c.ask(`{"id":"f","type":"subscribe","data":{"kinds":["reloaded"],"cursor":0}}`), "f", "ok")
	b.Events.Publish(api.Event{Kind: "a", Text: "x < y"})
	event := func(want string) api.Event {
		t.Helper()
		a := c.want(c.answer(), want, api.StatusEvent)
		var e api.Event
		if err := json.Unmarshal(a.Data, &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := event("s"); e.Kind != "a" || e.Text != "x < y" || e.Cursor != 2 || e.Gap {
		t.Errorf("event %+v", e)
	}
	b.Events.Publish(api.Event{Kind: api.EventReloaded})
	seen := map[string]api.Event{}
	for range 2 {
		a := c.answer()
		var e api.Event
		if err := json.Unmarshal(a.Data, &e); err != nil {
			t.Fatal(err)
		}
		seen[*a.ID] = e
	}
	if seen["s"].Kind != api.EventReloaded || seen["f"].Kind != api.EventReloaded {
		t.Errorf("events %+v", seen)
	}
	c.want(c.ask(`{"id":"s","type":"hello"}`), "s", "bad_request") // its id is in use
	c.Close()
	eventually(t, "the budget returns", func() bool { return b.InUse(ipc.BudgetRequests) == 0 })
}

// Who asks for events that never come is told so, and what was meant.
func TestSubscribeUnknownKind(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	a := c.want(c.ask(`{"id":"1","type":"subscribe","data":{"kinds":["contact_added","peer_conected"]}}`), "1", "bad_request")
	if string(a.Data) != `"\"data\": there is no kind of event \"peer_conected\""` || a.Hint != `did you mean "peer_connected"?` {
		t.Errorf("%s, hint %s", a.Data, a.Hint)
	}
	a = c.want(c.ask(`{"id":"1","type":"subscribe","data":{"kinds":["?"]}}`), "1", "bad_request")
	if !strings.Contains(a.Hint, api.EventListenEnded) {
		t.Errorf("hint %s", a.Hint)
	}
	for _, kind := range api.EventKinds() {
		c.want(c.ask(`{"id":"`+kind+`","type":"subscribe","data":{"kinds":["`+kind+`"]}}`), kind, "ok")
	}
}

// A subscriber that stops reading is not cut off, costs the others nothing and
// finds a gap when it comes back.
func TestSlowSubscriber(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{WriteQueue: 4 << 10, WriteTimeout: 10 * time.Millisecond})
	c, other := dial(t, path), dial(t, path)
	c.want(c.ask(`{"id":"s","type":"subscribe"}`), "s", "ok")
	text := strings.Repeat("x", 16<<10)
	for range 1000 {
		b.Events.Publish(api.Event{Kind: "a", Text: text})
	}
	other.works()
	gap := false
	for last := uint64(0); last < 1000; {
		a := c.want(c.answer(), "s", api.StatusEvent)
		var e api.Event
		if err := json.Unmarshal(a.Data, &e); err != nil {
			t.Fatal(err)
		}
		if e.Cursor != last+1 && !e.Gap {
			t.Fatalf("event %d follows %d without a gap", e.Cursor, last)
		}
		gap = gap || e.Gap
		last = e.Cursor
	}
	if !gap {
		t.Error("no gap, the test proved nothing")
	}
}

// Who only waits for others to act does not hold up a stop, and is told at once to
// ask again.
func TestCloseEndsWhatOnlyWaits(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	waiting := make(chan struct{})
	wait := func(ctx context.Context, _ ipc.Caller, _ *api.Request, _ []*os.File) (any, error) {
		waiting <- struct{}{}
		<-ctx.Done()
		return struct{}{}, nil // as it is
	}
	b.HandleVerb(api.VerbInboxList, wait)
	b.HandleVerb(api.VerbOutboxWait, wait)
	path := ipctest.Socket(t)
	_, stop := ipctest.Start(t, path, b, ipc.Options{DrainTimeout: patience})
	c := dial(t, path)
	c.send(`{"id":"1","type":"inbox.list","timeout_ms":3600000,"data":{"wait":true}}`,
		`{"id":"2","type":"outbox.wait","timeout_ms":3600000,"data":{"message_id":"123e4567-e89b-42d3-a456-426614174000"}}`)
	<-waiting
	<-waiting
	began := time.Now()
	stop()
	for range 2 {
		if a := c.answer(); a.Status != api.StatusError || a.Code != api.CodeUnavailable {
			t.Errorf("%+v", a)
		}
	}
	c.eof()
	if took := time.Since(began); took >= patience {
		t.Errorf("the stop took %v", took)
	}
}
