package ipc_test

import (
	"encoding/json"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/service/api"
)

// incoming reads an incoming line of the listen with this id.
func (r *raw) incoming(id string) api.Incoming {
	r.t.Helper()
	a := r.want(r.answer(), id, api.StatusIncoming)
	var in api.Incoming
	if err := json.Unmarshal(a.Data, &in); err != nil {
		r.t.Fatal(err)
	}
	return in
}

func TestListenReply(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	l, c := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	c.want(c.ask(`{"id":"x","type":"listen","protocol":"Mine"}`), "x", "conflict")
	l.want(l.ask(`{"id":"L","type":"hello"}`), "L", "bad_request")

	c.send(`{"id":"1","type":"call","target":"self","protocol":"Mine","data":{"n":12345678901234567890,"h":"<&>"}}`)
	in := l.incoming("L")
	if got, want := string(in.Data), `{"n":12345678901234567890,"h":"<&>"}`; got != want {
		t.Errorf("data %s, want %s as it was sent", got, want)
	}
	if in.Kind != "call" || in.Protocol != "Mine" || in.Instance != "default" || in.From != in.To || in.Contact != "self" {
		t.Errorf("incoming %+v", in)
	}
	l.want(l.ask(`{"id":"r","type":"reply","incoming":"`+in.Incoming+`","data":{"big":9007199254740993}}`), "r", "ok")
	if a := c.want(c.answer(), "1", "ok"); string(a.Data) != `{"big":9007199254740993}` {
		t.Errorf("data %s", a.Data)
	}
	l.want(l.ask(`{"id":"r","type":"reply","incoming":"`+in.Incoming+`","data":1}`), "r", "not_found")

	c.send(`{"id":"2","type":"call","target":"self","protocol":"Mine"}`)
	in = l.incoming("L")
	fail := `{"id":"r","type":"reply","incoming":"` + in.Incoming + `","error":{"code":"%","message":"no luck"}}`
	l.want(l.ask(replace(fail, "not_permitted")), "r", "bad_request")
	l.want(l.ask(replace(fail, "not_found")), "r", "ok")
	if a := c.want(c.answer(), "2", "not_found"); string(a.Data) != `"no luck"` {
		t.Errorf("message %s", a.Data)
	}

	l.want(l.ask(`{"id":"u","type":"unlisten","protocol":"Mine"}`), "u", "ok")
	l.want(l.ask(`{"id":"u","type":"unlisten","protocol":"Mine"}`), "u", "not_found")
	l.want(l.ask(`{"id":"L","type":"hello"}`), "L", "ok")
	c.want(c.ask(`{"id":"3","type":"call","target":"self","protocol":"Mine"}`), "3", "protocol_unavailable")
}

func TestListenerGone(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	l, c := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Mine"}`)
	l.incoming("L")
	l.Close()
	c.want(c.answer(), "1", "outcome_unknown")
	c.want(c.ask(`{"id":"2","type":"call","target":"self","protocol":"Mine"}`), "2", "protocol_unavailable")
	eventually(t, "the budget returns", func() bool { return b.InUse(ipc.BudgetRequests) == 0 })
}

func TestCallerGone(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{})
	l, c := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Mine"}`, `{"id":"2","type":"call","target":"self","protocol":"Mine","timeout_ms":30}`)
	told := map[string]bool{l.incoming("L").Incoming: true, l.incoming("L").Incoming: true}
	c.want(c.answer(), "2", "timeout")
	late := l.incoming("L")
	if !late.Cancel || !told[late.Incoming] {
		t.Fatalf("after the deadline %+v", late)
	}
	c.Close()
	gone := l.incoming("L")
	if !gone.Cancel || !told[gone.Incoming] || gone.Incoming == late.Incoming {
		t.Fatalf("after the caller went %+v", gone)
	}
	l.want(l.ask(`{"id":"r","type":"reply","incoming":"`+gone.Incoming+`","data":1}`), "r", "not_found")
}

func TestAccept(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
	l, c, a := dial(t, path), dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine","data":{"kinds":["stream"]}}`), "L", "ok")
	c.want(c.ask(`{"id":"0","type":"call","target":"self","protocol":"Mine"}`), "0", "protocol_unavailable")
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Mine","data":{"a":1},"stream":"` + uuidA + `"}`)
	in := l.incoming("L")
	if in.Kind != "stream" || string(in.Data) != `{"a":1}` {
		t.Fatalf("incoming %+v", in)
	}
	a.want(a.ask(`{"id":"2","type":"accept","incoming":"`+uuidA+`"}`), "2", "not_found")
	a.want(a.ask(`{"id":"2","type":"accept","incoming":"`+in.Incoming+`"}`), "2", "streaming")
	c.want(c.answer(), "1", "streaming")

	c.write("to the program")
	c.CloseWrite()
	a.readAll("to the program")
	a.write("and back")
	a.CloseWrite()
	c.readAll("and back")
	for _, id := range []string{uuidA, in.Incoming} {
		l.want(l.ask(`{"id":"r","type":"stream.result","stream":"`+id+`"}`), "r", "ok")
		got := l.want(l.ask(`{"id":"r","type":"stream.result","stream":"`+id+`"}`), "r", "ok")
		if string(got.Data) != `{"clean":true}` {
			t.Errorf("result of %s: %s", id, got.Data)
		}
	}
	eventually(t, "the budget returns", func() bool { return b.InUse(ipc.BudgetStreams) == 0 })
}

func TestAcceptInTime(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{AcceptTimeout: 20 * time.Millisecond})
	l, c := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	c.send(`{"id":"1","type":"stream","target":"self","protocol":"Mine"}`)
	in := l.incoming("L")
	c.want(c.answer(), "1", "protocol_unavailable")
	if again := l.incoming("L"); !again.Cancel || again.Incoming != in.Incoming {
		t.Errorf("not told that the caller gave up: %+v", again)
	}
	c.want(c.ask(`{"id":"2","type":"accept","incoming":"`+in.Incoming+`"}`), "2", "not_found")
	c.works()
}

// One caller gets half of a listener's places, the others a quarter each until it
// is full.
func TestListenerQueue(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{ListenerQueue: 8})
	l, c := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	l.want(l.ask(`{"id":"O","type":"listen","protocol":"Mine","from":"other"}`), "O", "ok")
	call := func(id, from string) string {
		return `{"id":"` + id + `","type":"call","target":"default","protocol":"Mine","from":"` + from + `"}`
	}
	var in api.Incoming
	for i := range 4 {
		c.send(call(fmt.Sprint("a", i), "default"))
		in = l.incoming("L")
	}
	a := c.want(c.ask(call("a4", "default")), "a4", "over_budget")
	if want := `"the program that serves Mine has not answered 4 requests of this caller"`; string(a.Data) != want {
		t.Errorf("told %s, want %s", a.Data, want)
	}
	for i := range 2 {
		c.send(call(fmt.Sprint("b", i), "other"))
		l.incoming("L")
	}
	c.want(c.ask(call("b2", "other")), "b2", "over_budget")
	l.want(l.ask(`{"id":"r","type":"reply","incoming":"`+in.Incoming+`"}`), "r", "ok")
	c.want(c.answer(), "a3", "ok")
	c.want(c.ask(call("a5", "default")), "a5", "over_budget") // 5 places are taken, 3 by this caller
	c.send(`{"id":"c","type":"call","target":"other","protocol":"Mine"}`)
	l.incoming("O") // another listener has places of its own
}

func TestListenerQueueFull(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{ListenerQueue: 1})
	l, c := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	c.send(`{"id":"1","type":"call","target":"default","protocol":"Mine"}`)
	in := l.incoming("L")
	c.want(c.ask(`{"id":"2","type":"call","target":"default","protocol":"Mine","from":"other"}`), "2", "over_budget")
	l.want(l.ask(`{"id":"r","type":"reply","incoming":"`+in.Incoming+`"}`), "r", "ok")
	c.want(c.answer(), "1", "ok")
	c.send(`{"id":"2","type":"call","target":"default","protocol":"Mine","from":"other"}`)
	l.incoming("L")
}

// Streams that were accepted take no place.
func TestListenerQueueAndStreams(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{ListenerQueue: 1})
	l := dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	for range 3 {
		c, a := dial(t, path), dial(t, path)
		c.send(`{"id":"1","type":"stream","target":"self","protocol":"Mine"}`)
		in := l.incoming("L")
		a.want(a.ask(`{"id":"2","type":"accept","incoming":"`+in.Incoming+`"}`), "2", "streaming")
		c.want(c.answer(), "1", "streaming")
	}
	c := dial(t, path)
	c.send(`{"id":"1","type":"call","target":"self","protocol":"Mine"}`)
	l.incoming("L")
}

// A listener that does not read holds up neither its callers nor anybody else.
func TestListenerDoesNotRead(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{WriteQueue: 8 << 10})
	l, c := dial(t, path), dial(t, path)
	l.want(l.ask(`{"id":"L","type":"listen","protocol":"Mine"}`), "L", "ok")
	big := `","type":"call","target":"self","protocol":"Mine","timeout_ms":300,"data":"` + string(make64k()) + `"}`
	const n = 100
	for i := range n {
		c.send(`{"id":"` + fmt.Sprint(i) + big)
	}
	codes := make(map[api.Code]int)
	for range n {
		codes[c.answer().Code]++
	}
	// The first ones were told and ran out of time, the others were not told.
	if codes[api.CodeTimeout] == 0 || codes[api.CodeOverBudget] == 0 || len(codes) != 2 {
		t.Fatalf("answers %v", codes)
	}
	dial(t, path).works()
}

func make64k() []byte {
	b := make([]byte, 64<<10)
	for i := range b {
		b[i] = 'x'
	}
	return b
}

func (r *raw) write(s string) {
	r.t.Helper()
	if _, err := io.WriteString(r.UnixConn, s); err != nil {
		r.t.Fatal(err)
	}
}

// readAll checks what comes until the end.
func (r *raw) readAll(want string) {
	r.t.Helper()
	got, err := io.ReadAll(r.r)
	if err != nil || string(got) != want {
		r.t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}
