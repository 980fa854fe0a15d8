package ipc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

// leaveUnread has c ask for more than its socket holds, and read none of it: all is
// answered, nothing is in flight, and the queue of answers is not full.
func leaveUnread(t *testing.T, b *ipctest.Backend, c *raw) {
	t.Helper()
	const most = 20
	answer := json.RawMessage(`"` + strings.Repeat("x", 100<<10) + `"`)
	var served atomic.Int64
	b.Handle("Large", router.HandlerFunc(func(context.Context, *router.Request) (json.RawMessage, error) {
		served.Add(1)
		return answer, nil
	}))
	before := b.InUse(ipc.BudgetRequests)
	for i := range most {
		c.send(fmt.Sprintf(`{"id":"%d","type":"call","target":"self","protocol":"Large"}`, i))
	}
	eventually(t, "all is answered", func() bool { return served.Load() == most && b.InUse(ipc.BudgetRequests) == before })
	if b.BytesHeld() == 0 {
		t.Fatal("the socket holds all answers, so this proves nothing")
	}
}

// unreadQueue holds all that leaveUnread asks for.
const unreadQueue = 64 << 20

// A client that opens or accepts a stream and does not read what was answered before
// holds up its stream, and whoever calls, no longer than it may leave a full queue.
func TestStreamBehindUnreadAnswers(t *testing.T) {
	o := ipc.Options{WriteQueue: unreadQueue, WriteTimeout: 100 * time.Millisecond}
	t.Run("accept", func(t *testing.T) {
		path, b, _ := serve(t, o)
		l, c, a := dial(t, path), dial(t, path), dial(t, path)
		l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
		leaveUnread(t, b, a)
		c.send(`{"id":"1","type":"stream","target":"self","protocol":"Mine"}`)
		in := l.incoming("L")
		a.send(`{"id":"a","type":"accept","incoming":"` + in.Incoming + `"}`)
		c.want(c.answer(), "1", "protocol_unavailable")
		endedWithoutStream(t, b, a)
		c.works()
	})
	t.Run("stream", func(t *testing.T) {
		path, b, _ := serve(t, o)
		a := dial(t, path)
		leaveUnread(t, b, a)
		accepted := make(chan error, 1)
		b.Handle("Test", router.HandlerFunc(func(_ context.Context, r *router.Request) (json.RawMessage, error) {
			_, err := r.Accept()
			accepted <- err
			return nil, err
		}))
		a.send(`{"id":"a","type":"stream","target":"self","protocol":"Test"}`)
		select {
		case err := <-accepted:
			if err == nil {
				t.Error("a stream was opened whose client does not read")
			}
		case <-time.After(patience):
			t.Fatal("the stream waits for ever")
		}
		endedWithoutStream(t, b, a)
	})
}

// endedWithoutStream waits until no stream is open and c's connection has ended.
func endedWithoutStream(t *testing.T, b *ipctest.Backend, c *raw) {
	t.Helper()
	eventually(t, "the places of the stream are given back", func() bool { return b.InUse(ipc.BudgetStreams) == 0 })
	if _, err := io.Copy(io.Discard, c.r); err != nil && !strings.Contains(err.Error(), "reset by peer") {
		t.Errorf("its connection did not end: %v", err)
	}
}

// A caller who goes away frees his place at once, whatever the program that accepted
// his stream has still to read.
func TestCallerGoesBehindUnreadAnswers(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{WriteQueue: unreadQueue, WriteTimeout: time.Hour})
	l, c, a := dial(t, path), dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	leaveUnread(t, b, a)
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Mine"}`)
	in := l.incoming("L")
	a.send(`{"id":"a","type":"accept","incoming":"` + in.Incoming + `"}`)
	eventually(t, "it is accepted", func() bool { return b.InUse(ipc.BudgetStreams) == 2 })
	c.Close()
	eventually(t, "the places of the stream are given back", func() bool { return b.InUse(ipc.BudgetStreams) == 0 })
}

// Who reads late, but in time, has its stream, and no limit on it.
func TestStreamBehindAnswersReadInTime(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{WriteQueue: unreadQueue, WriteTimeout: patience})
	a := dial(t, path)
	leaveUnread(t, b, a)
	a.send(`{"id":"a","type":"stream","target":"self","protocol":"Echo"}`)
	for answer := a.answer(); *answer.ID != "a"; answer = a.answer() {
	}
	a.write("still here")
	a.CloseWrite()
	a.readAll("still here")
}

// gatedBytes holds the answer that takes bytes next until open is closed.
type gatedBytes struct {
	*ipctest.Backend
	armed   atomic.Bool
	entered chan struct{}
	open    chan struct{}
}

func (g *gatedBytes) TakeBytes(c ipc.Caller, n int) error {
	if g.armed.CompareAndSwap(true, false) {
		close(g.entered)
		<-g.open
	}
	return g.Backend.TakeBytes(c, n)
}

// A stream that is asked for while the last answer is being queued is opened behind
// it: no line comes between the stream's bytes.
func TestStreamBehindLateAnswer(t *testing.T) {
	testutil.LeakCheck(t)
	g := &gatedBytes{Backend: ipctest.NewBackend(), entered: make(chan struct{}), open: make(chan struct{})}
	release := sync.OnceFunc(func() { close(g.open) })
	path, _ := serveBackend(t, g, ipc.Options{})
	defer release()
	answer := json.RawMessage(`"` + strings.Repeat("x", 3<<10) + `"`) // is counted
	g.Handle("Large", router.HandlerFunc(func(context.Context, *router.Request) (json.RawMessage, error) {
		g.armed.Store(true)
		return answer, nil
	}))
	accepted := make(chan struct{})
	g.Handle("Test", router.HandlerFunc(func(_ context.Context, r *router.Request) (json.RawMessage, error) {
		c, err := r.Accept()
		close(accepted)
		if err != nil {
			return nil, err
		}
		_, err = io.WriteString(c, "stream")
		return nil, errors.Join(err, c.CloseWrite())
	}))
	c := dial(t, path)
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Large"}`)
	<-g.entered
	c.send(`{"id":"2","type":"stream","target":"self","protocol":"Test"}`)
	select {
	case <-accepted:
		t.Error("a stream was opened before the last answer")
	case <-time.After(100 * time.Millisecond): // long enough to see it mostly
	}
	release()
	c.want(c.answer(), "1", "ok")
	c.want(c.answer(), "2", "streaming")
	c.readAll("stream")
}
