package ipc_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/service/api"
)

// bigCall is a call of about n bytes without its newline.
func bigCall(id, protocol string, n int) string {
	return `{"id":"` + id + `","type":"call","target":"self","protocol":"` + protocol + `","data":"` + strings.Repeat("x", n) + `"}`
}

// Unfinished lines count for their user: what goes beyond is read and refused, and
// the connection lives on.
func TestUnfinishedLines(t *testing.T) {
	path, b, s := serve(t, ipc.Options{RequestBytes: 256 << 10})
	var holders []*raw
	for range 2 {
		c := dial(t, path)
		c.write(bigCall("1", "Echo", 100<<10)) // needs a buffer of 128 KiB
		holders = append(holders, c)
	}
	eventually(t, "both lines are read", func() bool { return s.BytesHeld() == 2*126<<10 })
	c := dial(t, path)
	a := c.want(c.ask(bigCall("mine", "Echo", 100<<10)), "mine", "over_budget")
	if want := `"over budget: bytes of requests in flight of user tester, at most 262144; nothing was done"`; string(a.Data) != want {
		t.Errorf("told %s, want %s", a.Data, want)
	}
	c.works()
	c.write(strings.Repeat("x", 500<<10) + "\n" + bigCall("2", "Echo", 100<<10) + "\n" + `{"id":"3","type":"hello"}` + "\n")
	c.want(c.answer(), "null", "over_budget")
	c.want(c.answer(), "2", "over_budget")
	c.want(c.answer(), "3", "ok")
	// Another user has a budget of his own.
	b.As.Store(4242)
	other := dial(t, path)
	other.want(other.ask(bigCall("1", "Echo", 100<<10)), "1", "bad_request")

	holders[0].write("\n")
	holders[0].want(holders[0].answer(), "1", "bad_request")
	c.want(c.ask(bigCall("4", "Echo", 100<<10)), "4", "bad_request")
	holders[1].Close()
	eventually(t, "all is given back", func() bool { return s.BytesHeld() == 0 })
	// A line that is thrown away has its limit too.
	c.write(strings.Repeat("x", 3*api.MaxLine))
	c.want(c.answer(), "null", "too_large")
	c.eof()
}

// What calls in flight hold counts too, until they are answered.
func TestBytesInFlight(t *testing.T) {
	path, b, s := serve(t, ipc.Options{RequestBytes: 340 << 10})
	g := newGate()
	b.Handle("Slow", g)
	c := dial(t, path)
	for i := range 2 {
		c.send(bigCall(fmt.Sprint(i), "Slow", 100<<10))
		<-g.entered
	}
	c.want(c.ask(bigCall("2", "Slow", 100<<10)), "2", "over_budget")
	// Two in one write: the first is counted by its own length.
	d := dial(t, path)
	d.send(bigCall("1", "Slow", 20<<10), bigCall("2", "Slow", 20<<10))
	<-g.entered
	<-g.entered
	if held := s.BytesHeld(); held < 2*(126+20)<<10 {
		t.Errorf("only %d bytes are counted", held)
	}
	d.send(`{"id":"3","type":"call","target":"self","protocol":"Slow","data":"small ones count for nothing"}`)
	close(g.open)
	for range 2 {
		if a := c.answer(); a.Status != "ok" {
			t.Errorf("%+v", a)
		}
	}
	for range 3 {
		if a := d.answer(); a.Status != "ok" {
			t.Errorf("%+v", a)
		}
	}
	c.want(c.ask(bigCall("2", "Slow", 100<<10)), "2", "ok")
	eventually(t, "all is given back", func() bool { return s.BytesHeld() == 0 })
}

// Whatever way a request goes, what it held is given back.
func TestBytesGivenBack(t *testing.T) {
	path, _, s := serve(t, ipc.Options{})
	long := `"` + strings.Repeat("x", 10<<10) + `"`
	c := dial(t, path)
	for _, tc := range []struct{ members, want string }{
		{`"type":"hello","data":{"client":` + long + `}`, "ok"},
		{`"type":"hello","data":[` + long + `]`, "bad_request"},
		{`"type":"peer.list","data":{"client":` + long + `}`, "bad_request"},
		{`"type":"nothing","data":` + long, "unsupported"},
		{`"type":"call","target":"nobody","protocol":"Echo","data":` + long, "not_found"},
		{`"type":"stream","target":"self","protocol":"Nobody","data":` + long, "protocol_unavailable"},
		{`"type":"reply","incoming":"` + uuidA + `","data":` + long, "not_found"},
		{`"type":"listen","protocol":"Mine","data":{"kinds":[` + long + `]}`, "bad_request"},
		{`"type":"listen","protocol":"Mine","data":{"kinds":["call"]` + strings.Repeat(" ", 10<<10) + `}`, "ok"},
	} {
		c.want(c.ask(`{"id":"1",`+tc.members+`}`), "1", tc.want)
	}
	if s.BytesHeld() == 0 {
		t.Error("the listen request counts for nothing")
	}
	c.want(c.ask(`{"id":"2","type":"unlisten","protocol":"Mine"}`), "2", "ok")
	c.want(c.ask(`{"id":"1","type":"stream","target":"self","protocol":"Echo","data":`+long+`}`), "1", "streaming")
	if s.BytesHeld() == 0 {
		t.Error("the stream request counts for nothing")
	}
	c.CloseWrite()
	c.eof()
	eventually(t, "all is given back", func() bool { return s.BytesHeld() == 0 })
}

// A user's unfinished lines cost the daemon what the budget allows, however many
// connections they come on.
func TestUnfinishedLinesCost(t *testing.T) {
	path, _, _ := serve(t, ipc.Options{RequestBytes: 8 << 20})
	const n = 100
	fds := bareClients(t, path, n)
	line := make([]byte, api.MaxLine-1)
	for i := range line {
		line[i] = 'x'
	}
	before := inUse()
	for _, fd := range fds {
		for rest := line; len(rest) > 0; {
			m, err := unix.Write(fd, rest)
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[m:]
		}
	}
	grown := inUse() - before
	t.Logf("%d unfinished lines hold %d bytes", n, grown)
	if most := int64(8<<20 + n*20<<10); grown > most {
		t.Errorf("%d unfinished lines hold %d bytes, want at most %d", n, grown, most)
	}
	c := dial(t, path)
	c.works()

}
