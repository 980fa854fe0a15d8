package ipc_test

import (
	"context"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	uuidA = "aaaaaaaa-0000-4000-8000-000000000001"
	uuidB = "aaaaaaaa-0000-4000-8000-000000000002"
)

func replace(pattern, with string) string { return strings.Replace(pattern, "%", with, 1) }

// Each bad line gets exactly one error, and nothing else is affected.
func TestBadLines(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	for _, tc := range []struct{ name, line, id, code string }{
		{"not JSON", `hello`, "null", "bad_request"},
		{"not an object", `[1]`, "null", "bad_request"},
		{"cut off", `{"id":"1","type":"hel`, "1", "bad_request"},
		{"two values", `{"id":"1","type":"hello"} {}`, "1", "bad_request"},
		{"no id", `{"type":"hello"}`, "null", "bad_request"},
		{"id is a number", `{"id":1,"type":"hello"}`, "null", "bad_request"},
		{"id is null", `{"id":null,"type":"hello"}`, "null", "bad_request"},
		{"id too long", `{"id":"` + strings.Repeat("x", 257) + `","type":"hello"}`, "null", "bad_request"},
		{"no type", `{"id":"1"}`, "1", "bad_request"},
		{"unknown member", `{"id":"1","type":"hello","tpye":1}`, "1", "bad_request"},
		{"duplicate key", `{"id":"1","type":"hello","type":"call"}`, "1", "bad_request"},
		{"duplicate key, escaped", `{"id":"1","type":"hello","data":{"a":1,"\u0061":2}}`, "1", "bad_request"},
		{"bad UTF-8", "{\"id\":\"1\",\"type\":\"hello\",\"data\":{\"client\":\"\xff\"}}", "1", "bad_request"},
		{"lone surrogate", `{"id":"1","type":"hello","data":{"client":"\ud800"}}`, "1", "bad_request"},
		{"deep", `{"id":"1","type":"hello","data":` + strings.Repeat("[", 100000) + `}`, "1", "bad_request"},
		{"only a carriage return and a space", " \r", "null", "bad_request"},
		{"needs a target", `{"id":"1","type":"call","protocol":"Echo"}`, "1", "bad_request"},
		{"needs a protocol", `{"id":"1","type":"call","target":"self"}`, "1", "bad_request"},
		{"does not use stream", `{"id":"1","type":"call","target":"self","protocol":"Echo","stream":"` + uuidA + `"}`, "1", "bad_request"},
		{"does not use message_id", `{"id":"1","type":"call","target":"self","protocol":"Echo","message_id":"` + uuidA + `"}`, "1", "bad_request"},
		{"does not use target", `{"id":"1","type":"peer.list","target":"self"}`, "1", "bad_request"},
		{"stream is no UUID", `{"id":"1","type":"stream","target":"self","protocol":"Echo","stream":"mine"}`, "1", "bad_request"},
		{"protocol with a space", `{"id":"1","type":"call","target":"self","protocol":"E cho"}`, "1", "bad_request"},
		{"bad instance", `{"id":"1","type":"call","target":"self","protocol":"Echo","instance":"../x"}`, "1", "bad_request"},
		{"negative time", `{"id":"1","type":"call","target":"self","protocol":"Echo","timeout_ms":-1}`, "1", "bad_request"},
		{"time is no whole number", `{"id":"1","type":"call","target":"self","protocol":"Echo","timeout_ms":1.5}`, "1", "bad_request"},
		{"unknown type", `{"id":"1","type":"identity.lst"}`, "1", "unsupported"},
		{"reply with both", `{"id":"1","type":"reply","incoming":"` + uuidA + `","data":1,"error":{"message":"x"}}`, "1", "bad_request"},
		{"time beyond all numbers", `{"id":"1","type":"call","target":"self","protocol":"Echo","timeout_ms":99999999999999999999,"data":{"message":"x"}}`, "1", "ok"},
		{"time with an exponent", `{"id":"1","type":"call","target":"self","protocol":"Echo","timeout_ms":1e30}`, "1", "bad_request"},
		{"time far below 0", `{"id":"1","type":"call","target":"self","protocol":"Echo","timeout_ms":-99999999999999999999}`, "1", "bad_request"},
		{"no kinds", `{"id":"1","type":"listen","protocol":"P","data":{"kinds":[]}}`, "1", "bad_request"},
		{"cursor of no event", `{"id":"1","type":"subscribe","data":{"cursor":9007199254740992}}`, "1", "bad_request"},
		{"cursor far from any", `{"id":"1","type":"subscribe","data":{"cursor":9999999999999999}}`, "1", "bad_request"},
		{"unknown kind", `{"id":"1","type":"listen","protocol":"P","data":{"kinds":["mail"]}}`, "1", "bad_request"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, path)
			c.want(c.ask(tc.line), tc.id, tc.code)
			c.works()
		})
	}
}

func TestNearestType(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	for typ, hint := range map[string]string{"identity.lst": `did you mean "identity.list"?`, "strem": `did you mean "stream"?`,
		"qqqqqqq":                      "the types are in PROTOCOL.md; a newer client may need a newer daemon",
		strings.Repeat("stream", 1000): "the types are in PROTOCOL.md; a newer client may need a newer daemon"} {
		if a := c.ask(`{"id":"1","type":"` + typ + `"}`); a.Hint != hint || len(a.Data) > 200 {
			t.Errorf("hint for %.20q: %q, %d bytes of message", typ, a.Hint, len(a.Data))
		}
	}
}

func TestLineForms(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	// Empty lines are no requests; a line may end in CR LF; many come in one write.
	c.send("", "\r", `{"id":"1","type":"hello"}`+"\r", "", `{"id":"2","type":"hello"}`)
	c.want(c.answer(), "1", "ok")
	c.want(c.answer(), "2", "ok")
	// A line may come byte by byte.
	for _, b := range []byte(`{"id":"3","type":"hello"}` + "\n") {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	c.want(c.answer(), "3", "ok")
	// Text between tokens does not break the answer's line.
	c.send(`{"id":"4\n\"é","type":"hello"}`)
	c.want(c.answer(), "4\n\"é", "ok")
}

// lineOf is a call of n bytes with its newline.
func lineOf(n int, id string) string {
	head, tail := `{"id":"`+id+`","type":"hello","data":{"client":"`, `"}}`
	return head + strings.Repeat("x", n-len(head)-len(tail)-1) + tail
}

func TestLongestLine(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	// The line is within its limit, its data is not within that of data.
	c.want(c.ask(lineOf(api.MaxLine, "1")), "1", "too_large")
	c.want(c.ask(lineOf(api.MaxPayload, "2")), "2", "ok")
	c.works()
}

func TestLineTooLong(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	for name, line := range map[string]string{
		"by one byte":       lineOf(api.MaxLine+1, "1") + "\n",
		"without an end":    strings.Repeat("x", api.MaxLine),
		"much":              strings.Repeat("x", 3*api.MaxLine) + "\n" + `{"id":"1","type":"hello"}` + "\n",
		"behind a good one": `{"id":"2","type":"hello"}` + "\n" + strings.Repeat("x", api.MaxLine+1),
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, path)
			c.write(line) // all of it is taken: the error is not lost in a reset
			if strings.HasPrefix(line, `{"id":"2"`) {
				c.want(c.answer(), "2", "ok")
			}
			c.want(c.answer(), "null", "too_large")
			c.eof()
		})
	}
}

func TestRefusedConnection(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	b.Refuse = api.Errorf(api.CodeNotPermitted, "you are not in the group").WithHint("join it")
	path, _ := serveBackend(t, b, ipc.Options{})
	c := dial(t, path)
	c.send(`{"id":"1","type":"hello"}`)
	if got, want := c.line(), `{"id":null,"status":"error","data":"you are not in the group","code":"not_permitted","hint":"join it"}`+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	c.eof()
}

// A crowd that is refused costs few descriptors, though each is told why, and leaves
// others the time to read why they are refused.
func TestRefusedCrowd(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	b.Refuse = api.Errorf(api.CodeNotPermitted, "you are not in the group")
	path, _ := serveBackend(t, b, ipc.Options{LingerTimeout: time.Hour})
	refused := func(uid uint32, n, most int) (kept int) {
		b.As.Store(uid)
		before := descriptors(t)
		for range n {
			c := dial(t, path)
			_, _ = io.WriteString(c.UnixConn, `{"id":"1","type":"hello"}`+"\n") // may be lost, the answer not
			c.want(c.answer(), "null", "not_permitted")
		}
		eventually(t, "the daemon has closed most", func() bool {
			kept = descriptors(t) - before - n
			return kept <= most
		})
		return kept
	}
	for uid := range uint32(8) {
		if kept := refused(1+uid, 60, 8); kept < 8 {
			t.Errorf("of user %d, who is one of 8, %d connections are lingered on", uid, kept)
		}
	}
	refused(100, 60, 0)
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A client that has said all it wants, as `nc -N` does, still gets its answers.
func TestHalfClosedClient(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	l, c := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Slow"}`), "L", "ok")
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Slow"}`, `{"id":"2","type":"hello"}`)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.want(c.answer(), "2", "ok")
	in := l.incoming("L")
	l.want(l.ask(`{"id":"r","type":"reply","incoming":"`+in.Incoming+`","data":"late"}`), "r", "ok")
	c.want(c.answer(), "1", "ok")
	c.eof()

	// Half closed, then gone: the call is cancelled.
	c = dial(t, path)
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Slow"}`)
	in = l.incoming("L")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if gone := l.incoming("L"); !gone.Cancel || gone.Incoming != in.Incoming {
		t.Fatalf("told %+v, want the call's end", gone)
	}
	l.Close()
	eventually(t, "connections end", func() bool { return b.InUse("connections") == 0 })
}

func TestIDs(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	l, c := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Slow"}`), "L", "ok")
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Slow"}`)
	in := l.incoming("L")
	c.want(c.ask(`{"id":"1","type":"call","target":"self","protocol":"Echo","data":{"message":"x"}}`), "1", "bad_request")
	l.want(l.ask(`{"id":"r","type":"reply","incoming":"`+in.Incoming+`","data":"first"}`), "r", "ok")
	if a := c.want(c.answer(), "1", "ok"); string(a.Data) != `"first"` {
		t.Errorf("the first request got %s", a.Data)
	}
	c.want(c.ask(`{"id":"1","type":"hello"}`), "1", "ok")
	c.want(c.ask(`{"id":"","type":"hello"}`), "", "ok")
}

// A client that stops reading is cut off, and others do not notice.
func TestClientDoesNotRead(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{WriteQueue: 32 << 10, WriteTimeout: 100 * time.Millisecond})
	stuck, other := dial(t, path), dial(t, path)
	message := strings.Repeat("x", 1<<10)
	line := `{"id":"1","type":"call","target":"self","protocol":"Echo","data":{"message":"` + message + `"}}`
	stopped := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			if _, err := io.WriteString(stuck.UnixConn, strings.Replace(line, `"1"`, `"`+time.Duration(i).String()+`"`, 1)+"\n"); err != nil {
				stopped <- err
				return
			}
		}
	}()
	other.works()
	if err := <-stopped; !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the stuck client was stopped by %v", err)
	}
	other.works()
	other.Close()
	eventually(t, "connections end", func() bool { return b.InUse("connections") == 0 && b.InUse(ipc.BudgetRequests) == 0 })
}

func TestRequestBudget(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	b.Requests, b.Streams = 2, 1
	path, _ := serveBackend(t, b, ipc.Options{})
	l, c, d := dial(t, path), dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Slow"}`), "L", "ok")
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Slow"}`)
	in := l.incoming("L")
	c.want(c.ask(`{"id":"2","type":"peer.list"}`), "2", "over_budget")
	l.want(l.ask(`{"id":"r","type":"reply","incoming":"`+in.Incoming+`","data":1}`), "r", "ok")
	c.want(c.answer(), "1", "ok")
	c.want(c.ask(`{"id":"2","type":"peer.list"}`), "2", "ok")
	c.want(c.ask(`{"id":"s","type":"stream","target":"self","protocol":"Echo"}`), "s", "streaming")
	d.want(d.ask(`{"id":"s","type":"stream","target":"self","protocol":"Echo"}`), "s", "over_budget")
	d.works()
}

func TestAdminVerbs(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	b.As.Store(4242)
	path, _ := serveBackend(t, b, ipc.Options{})
	c := dial(t, path)
	for _, v := range api.Verbs() {
		if v.Admin {
			c.want(c.ask(`{"id":"1","type":"`+v.Name+`"}`), "1", "not_permitted")
		}
	}
}

// Arguments are what PROTOCOL.md says, to the letter, whatever the verb.
func TestStrictArguments(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	c := dial(t, path)
	ask := func(v api.Verb, data string) api.Response {
		var files []*os.File
		if v.Files > 0 {
			files = []*os.File{tempFile(t)}
		}
		c.sendFiles(`{"id":"1","type":"`+v.Name+`","data":`+data+"}\n", files...)
		return c.answer()
	}
	for _, v := range api.Verbs() {
		b.HandleVerb(v.Name, func(_ context.Context, _ ipc.Caller, _ *api.Request, files []*os.File) (any, error) {
			for _, f := range files {
				f.Close()
			}
			return nil, nil
		})
		c.want(ask(v, `{}`), "1", "ok")
		bad := []string{`[1,2]`, `"x"`, `1`, `null`, `{"bogus":1}`}
		if v.Args != nil {
			for typ, i := reflect.TypeOf(v.Args), 0; i < typ.NumField(); i++ {
				name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
				bad = append(bad, `{"`+strings.ToUpper(name)+`":"x"}`, `{"`+name+`":{}}`, `{"`+name+`":null}`)
			}
		}
		for _, data := range bad {
			if a := ask(v, data); a.Code != api.CodeBadRequest {
				t.Errorf("%s %s: %+v", v.Name, data, a)
			}
		}
	}
	for _, line := range []string{`"type":"hello","data":{"Client":"x"}`, `"type":"subscribe","data":{"Kinds":[]}`, `"type":"subscribe","data":null`,
		`"type":"listen","protocol":"P","data":{"KINDS":["call"]}`, `"type":"reply","incoming":"` + uuidA + `","error":{"Message":"x"}`} {
		c.want(c.ask(`{"id":"1",`+line+`}`), "1", "bad_request")
	}
}

// One user's streams and incoming streams do not exist for another.
func TestOwnership(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path, _ := serveBackend(t, b, ipc.Options{})
	mine := dial(t, path)
	mine.want(mine.ask(`{"id":"1","type":"stream","target":"self","protocol":"Echo","stream":"`+uuidA+`"}`), "1", "streaming")
	l, c := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Mine"}`)
	in := l.incoming("L")
	b.As.Store(4242) // whoever connects now
	theirs := dial(t, path)
	for _, line := range []string{
		`{"id":"1","type":"stream.result","stream":"` + uuidA + `"}`,
		`{"id":"1","type":"stream.reset","stream":"` + uuidA + `"}`,
		`{"id":"1","type":"accept","incoming":"` + in.Incoming + `"}`,
		`{"id":"1","type":"reply","incoming":"` + in.Incoming + `"}`,
	} {
		theirs.want(theirs.ask(line), "1", "not_found")
	}
	// The id is unique for each uid only.
	theirs.want(theirs.ask(`{"id":"1","type":"stream","target":"self","protocol":"Echo","stream":"`+uuidA+`"}`), "1", "streaming")
	b.As.Store(0)
	own := dial(t, path)
	own.want(own.ask(`{"id":"1","type":"accept","incoming":"`+in.Incoming+`"}`), "1", "streaming")
}

func TestDisconnect(t *testing.T) {
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	path, s := serveBackend(t, b, ipc.Options{})
	accepted, told := make(chan struct{}), make(chan error, 1)
	onStream(b, func(_ context.Context, conn router.Conn) error {
		close(accepted)
		_, err := conn.Read(make([]byte, 1))
		told <- err
		return err
	})
	mine := dial(t, path)
	mine.works()
	b.As.Store(4242)
	lines := dial(t, path)
	lines.works()
	streaming := openTest(t, path)
	<-accepted
	if n := s.Disconnect(4242); n != 2 {
		t.Errorf("cut %d connections, want 2", n)
	}
	lines.eof()
	streaming.eof()
	// Not that the client closed, though that is how it looks from the socket.
	const why = "an administrator disconnected the user"
	if err := <-told; api.CodeOf(err) != api.CodeCancelled || err.Error() != why {
		t.Errorf("the handler was told %v", err)
	}
	if res := result(t, path); res != (api.StreamResult{Code: api.CodeCancelled, Reason: why}) {
		t.Errorf("result %+v", res)
	}
	mine.works()
	if n := s.Disconnect(999); n != 0 {
		t.Errorf("cut %d connections of a uid without any", n)
	}
}

// Who disconnects himself gets the answer first.
func TestDisconnectOneself(t *testing.T) {
	path, b, s := serve(t, ipc.Options{})
	b.HandleVerb(api.VerbDaemonDisconnect, func(_ context.Context, c ipc.Caller, _ *api.Request, _ []*os.File) (any, error) {
		return api.Disconnected{Connections: s.Disconnect(c.UID)}, nil
	})
	for range 20 {
		c, other := dial(t, path), dial(t, path)
		other.works()
		a := c.want(c.ask(`{"id":"1","type":"daemon.disconnect","data":{"user":"me"}}`), "1", "ok")
		if string(a.Data) != `{"connections":2}` {
			t.Errorf("answer %s", a.Data)
		}
		other.eof()
		c.eof()
		eventually(t, "both are gone", func() bool { return b.InUse("connections") == 0 })
	}
}
