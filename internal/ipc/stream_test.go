package ipc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// onStream makes b hand each stream of protocol Test to the test.
func onStream(b *ipctest.Backend, serve func(ctx context.Context, conn router.Conn) error) {
	b.Handle("Test", router.HandlerFunc(func(ctx context.Context, r *router.Request) (json.RawMessage, error) {
		conn, err := r.Accept()
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		return nil, serve(ctx, conn)
	}))
}

// openTest opens a stream of protocol Test with the id uuidA.
func openTest(t testing.TB, path string) *raw {
	t.Helper()
	c := dial(t, path)
	c.want(c.ask(`{"id":"1","type":"stream","target":"self","protocol":"Test","stream":"`+uuidA+`"}`), "1", "streaming")
	return c
}

// result waits for the end of stream uuidA.
func result(t testing.TB, path string) api.StreamResult {
	t.Helper()
	c := dial(t, path)
	a := c.want(c.ask(`{"id":"1","type":"stream.result","stream":"`+uuidA+`"}`), "1", "ok")
	var res api.StreamResult
	if err := json.Unmarshal(a.Data, &res); err != nil {
		t.Fatal(err)
	}
	return res
}

// Each direction ends on its own: here the handler's first, then the client's.
func TestStreamHandlerEndsFirst(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	got := make(chan []byte, 1)
	onStream(b, func(_ context.Context, conn router.Conn) error {
		if _, err := conn.Write([]byte("first")); err != nil {
			return err
		}
		if err := conn.CloseWrite(); err != nil {
			return err
		}
		all, err := io.ReadAll(conn)
		got <- all
		return err
	})
	c := openTest(t, path)
	c.readAll("first")
	sent := make([]byte, 5<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	c.write(string(sent))
	c.CloseWrite()
	if !bytes.Equal(<-got, sent) {
		t.Error("the bytes came differently")
	}
	if res := result(t, path); !res.Clean {
		t.Errorf("result %+v, want clean", res)
	}
}

func TestStreamIsRawForGood(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	onStream(b, func(_ context.Context, conn router.Conn) error {
		_, err := io.Copy(conn, conn)
		return errors.Join(err, conn.CloseWrite())
	})
	c := openTest(t, path)
	// Looks like requests, and is longer than a line may be.
	sent := `{"id":"2","type":"hello"}` + "\n" + string(bytes.Repeat([]byte("x"), 2*api.MaxLine))
	go func() {
		_, _ = io.WriteString(c.UnixConn, sent) // what is missing shows below
		c.CloseWrite()
	}()
	c.readAll(sent)
}

func TestEarlyBytes(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	opened := make(chan struct{})
	b.Handle("Slow", router.HandlerFunc(func(ctx context.Context, r *router.Request) (json.RawMessage, error) {
		close(opened)
		<-ctx.Done()
		if _, err := r.Accept(); err == nil {
			t.Error("accepted a stream whose client sent early")
		}
		return nil, ctx.Err()
	}))
	c := dial(t, path)
	// Together with the request.
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Echo"}`, `{"id":"2","type":"hello"}`)
	c.want(c.answer(), "1", "bad_request")
	c.want(c.answer(), "2", "ok")
	// While it is being opened, and not even a whole line.
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Slow"}`)
	<-opened
	c.write(`{"id":"2",`)
	c.want(c.answer(), "1", "bad_request")
	c.write(`"type":"hello"}` + "\n")
	c.want(c.answer(), "2", "ok")
}

// Bytes that the kernel holds when the stream is accepted are early too.
func TestEarlyBytesInKernel(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	answered := make(chan error, 1)
	b.Handle("Test", router.HandlerFunc(func(_ context.Context, r *router.Request) (json.RawMessage, error) {
		conn, err := r.Accept()
		answered <- err
		if err == nil {
			_, err = io.ReadAll(conn)
		}
		return nil, err
	}))
	for range 50 { // whether reader or accept sees the bytes first is the scheduler's choice
		c.write(`{"id":"1","type":"stream","target":"self","protocol":"Test"}` + "\n")
		c.write("\n")
		a := c.answer()
		var err error
		select {
		case err = <-answered:
		default:
			err = io.EOF // refused before there was a handler
		}
		if a.Status == api.StatusStreaming {
			if err != nil {
				t.Fatalf("streaming, but Accept gave %v", err)
			}
			// The byte was sent behind the answer as far as anybody can tell.
			c.Close()
			c = dial(t, path)
			continue
		}
		if err == nil || a.Code != api.CodeBadRequest {
			t.Fatalf("answer %+v, Accept %v", a, err)
		}
		c.works()
	}
}

func TestStreamNeedsItsConnection(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	l, c := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Slow"}`), "L", "ok")
	l.want(l.ask(`{"id":"1","type":"stream","target":"self","protocol":"Echo"}`), "1", "bad_request")
	l.want(l.ask(`{"id":"1","type":"accept","incoming":"`+uuidA+`"}`), "1", "bad_request")
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Slow"}`)
	l.incoming("L")
	c.want(c.ask(`{"id":"2","type":"stream","target":"self","protocol":"Echo"}`), "2", "bad_request")
}

func TestStreamRefused(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	line := `{"id":"1","type":"stream","target":"self","protocol":"%","timeout_ms":20,"stream":"` + uuidA + `"}`
	b.Handle("Refuses", router.HandlerFunc(func(context.Context, *router.Request) (json.RawMessage, error) {
		return nil, api.Refusal()
	}))
	b.Handle("Forgets", router.HandlerFunc(func(context.Context, *router.Request) (json.RawMessage, error) {
		return nil, nil
	}))
	b.Handle("Waits", router.HandlerFunc(func(ctx context.Context, _ *router.Request) (json.RawMessage, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	for protocol, code := range map[string]string{"Refuses": "refused", "Forgets": "protocol_unavailable", "Waits": "timeout", "Nobody": "protocol_unavailable"} {
		c.want(c.ask(replace(line, protocol)), "1", code)
		// Its id is free again.
		c.want(c.ask(`{"id":"r","type":"stream.result","stream":"`+uuidA+`"}`), "r", "not_found")
	}
	// The time allowed is for the opening: an accepted stream outlives it.
	onStream(b, func(ctx context.Context, conn router.Conn) error {
		defer context.AfterFunc(ctx, func() { conn.Reset(api.CodeOf(context.Cause(ctx))) })() // as the router does
		_, err := io.Copy(conn, conn)
		return errors.Join(err, conn.CloseWrite())
	})
	c.want(c.ask(replace(line, "Test")), "1", "streaming")
	d := dial(t, path)
	d.want(d.ask(strings.Replace(replace(line, "Waits"), uuidA, uuidB, 1)), "1", "timeout") // began later: its time is up after that of the first
	c.write("still here")
	c.CloseWrite()
	c.readAll("still here")
	d.want(d.ask(replace(line, "Echo")), "1", "conflict")
	d.works()
}

// A client that closes while there is more for it has aborted the stream.
func TestClientAborts(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	wrote := make(chan error, 1)
	onStream(b, func(_ context.Context, conn router.Conn) error {
		for {
			if _, err := conn.Write(make([]byte, 64<<10)); err != nil {
				wrote <- err
				return err
			}
		}
	})
	c := openTest(t, path)
	if _, err := io.ReadFull(c.r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-wrote; api.CodeOf(err) != api.CodeAborted {
		t.Errorf("the handler was told %v, want aborted", err)
	}
	if res := result(t, path); res.Clean || res.Code != api.CodeAborted {
		t.Errorf("result %+v, want aborted", res)
	}
}

func TestHandlerResets(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	for name, tc := range map[string]struct {
		serve func(context.Context, router.Conn) error
		want  api.StreamResult
	}{
		"reset": {func(_ context.Context, conn router.Conn) error {
			conn.Reset(api.CodeStalled)
			conn.Reset(api.CodeAborted) // the first counts
			return nil
		}, api.StreamResult{Code: api.CodeStalled, Reason: "the stream was reset because its reader stopped reading"}},
		"reset with a reason": {func(_ context.Context, conn router.Conn) error {
			conn.Reset(api.CodeStalled)
			return api.Errorf(api.CodeStalled, "bob stopped reading")
		}, api.StreamResult{Code: api.CodeStalled, Reason: "bob stopped reading"}},
		"error": {func(context.Context, router.Conn) error {
			return api.Errorf(api.CodeOutcomeUnknown, "the connection to the node was lost")
		}, api.StreamResult{Code: api.CodeOutcomeUnknown, Reason: "the connection to the node was lost"}},
		"left": {func(context.Context, router.Conn) error { return nil },
			api.StreamResult{Code: api.CodeAborted, Reason: "the stream was reset before its end"}},
	} {
		t.Run(name, func(t *testing.T) {
			onStream(b, tc.serve)
			c := dial(t, path)
			id := "aaaaaaaa-0000-4000-8000-" + hex12()
			c.want(c.ask(`{"id":"1","type":"stream","target":"self","protocol":"Test","stream":"`+id+`"}`), "1", "streaming")
			c.eof()
			d := dial(t, path)
			a := d.want(d.ask(`{"id":"1","type":"stream.result","stream":"`+id+`"}`), "1", "ok")
			var got api.StreamResult
			if err := json.Unmarshal(a.Data, &got); err != nil || got != tc.want {
				t.Errorf("result %+v, want %+v", got, tc.want)
			}
		})
	}
}

// What the client has sent and nobody read does not make its end of file a
// failed read.
func TestResetWithBytesUnread(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	onStream(b, func(_ context.Context, conn router.Conn) error {
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		conn.Reset(api.CodeStalled)
		return nil
	})
	c := openTest(t, path)
	c.send("some")
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		t.Errorf("read %q and %v, want the end of file", rest, err)
	}
}

func hex12() string {
	const digits = "0123456789abcdef"
	b := make([]byte, 12)
	for i := range b {
		b[i] = digits[rand.IntN(16)]
	}
	return string(b)
}

func TestStreamReset(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	handler := make(chan error, 1)
	onStream(b, func(ctx context.Context, conn router.Conn) error {
		_, err := conn.Read(make([]byte, 1))
		<-ctx.Done()
		handler <- err
		return err
	})
	c := openTest(t, path)
	d := dial(t, path)
	waits := dial(t, path)
	waits.send(`{"id":"w","type":"stream.result","stream":"` + uuidA + `"}`)
	d.want(d.ask(`{"id":"1","type":"stream.result","stream":"`+uuidA+`","timeout_ms":10}`), "1", "timeout")
	d.want(d.ask(`{"id":"1","type":"stream.reset","stream":"`+uuidA+`"}`), "1", "ok")
	c.eof()
	if err := <-handler; api.CodeOf(err) != api.CodeAborted {
		t.Errorf("the handler was told %v, want aborted", err)
	}
	if a := waits.want(waits.answer(), "w", "ok"); string(a.Data) != `{"clean":false,"code":"aborted","reason":"the client reset the stream"}` {
		t.Errorf("result %s", a.Data)
	}
	// Again does nothing more.
	d.want(d.ask(`{"id":"1","type":"stream.reset","stream":"`+uuidA+`"}`), "1", "ok")
	d.want(d.ask(`{"id":"1","type":"stream.reset","stream":"`+uuidB+`"}`), "1", "not_found")
}

// A stream that is still being opened can be reset too.
func TestStreamResetWhileOpening(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	opened := make(chan struct{})
	b.Handle("Slow", router.HandlerFunc(func(ctx context.Context, _ *router.Request) (json.RawMessage, error) {
		close(opened)
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	c, d := dial(t, path), dial(t, path)
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Slow","stream":"` + uuidA + `"}`)
	<-opened
	d.want(d.ask(`{"id":"1","type":"stream.reset","stream":"`+uuidA+`"}`), "1", "ok")
	c.want(c.answer(), "1", "aborted")
	c.works()
}

// A client that ended its direction and is gone leaves nobody to read; the stream
// ends once its last bytes had time.
func TestGoneAfterCleanEnd(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{GoneGrace: 20 * time.Millisecond})
	ended := make(chan struct{})
	onStream(b, func(ctx context.Context, conn router.Conn) error {
		if _, err := io.ReadAll(conn); err != nil {
			t.Errorf("the clean end came as %v", err)
		}
		close(ended)
		<-ctx.Done() // as when the far side says nothing
		return ctx.Err()
	})
	c := openTest(t, path)
	c.write("all I had")
	c.CloseWrite()
	<-ended
	c.Close()
	if res := result(t, path); res.Clean || res.Code != api.CodeCancelled {
		t.Errorf("result %+v, want cancelled", res)
	}
}

// Aborts pass through a program that listens.
func TestAbortThroughListener(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	l, c, a := dial(t, path), dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Mine","stream":"` + uuidA + `"}`)
	in := l.incoming("L")
	a.want(a.ask(`{"id":"2","type":"accept","incoming":"`+in.Incoming+`"}`), "2", "streaming")
	c.want(c.answer(), "1", "streaming")
	c.write("some")
	if _, err := io.ReadFull(a.r, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	l.want(l.ask(`{"id":"r","type":"stream.reset","stream":"`+in.Incoming+`"}`), "r", "ok")
	c.eof()
	a.eof()
	if res := result(t, path); res.Clean || res.Code != api.CodeAborted {
		t.Errorf("result %+v, want aborted", res)
	}
	// Ending the registration does not end streams that were accepted.
	c, a = dial(t, path), dial(t, path)
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Mine"}`)
	in = l.incoming("L")
	a.want(a.ask(`{"id":"2","type":"accept","incoming":"`+in.Incoming+`"}`), "2", "streaming")
	c.want(c.answer(), "1", "streaming")
	l.Close()
	eventually(t, "the listener is gone", func() bool { return b.InUse(ipc.BudgetRequests) == 0 })
	c.write("goes on")
	c.CloseWrite()
	a.readAll("goes on")
}

// An access rule that is withdrawn ends the context, and that the stream.
func TestContextEndsSplice(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	l, c, a := dial(t, path), dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Mine","stream":"` + uuidA + `"}`)
	in := l.incoming("L")
	a.want(a.ask(`{"id":"2","type":"accept","incoming":"`+in.Incoming+`"}`), "2", "streaming")
	c.want(c.answer(), "1", "streaming")
	b.Withdraw()
	c.eof()
	a.eof()
	if res := result(t, path); res.Clean || res.Code != api.CodeNotPermitted {
		t.Errorf("result %+v, want not_permitted", res)
	}
}
