package ipc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// bigCall is a call of about n bytes without its newline.
func bigCall(id, protocol string, n int) string {
	return `{"id":"` + id + `","type":"call","target":"self","protocol":"` + protocol + `","data":"` + strings.Repeat("x", n) + `"}`
}

// serveBytes serves with a budget of bytes for each uid.
func serveBytes(t *testing.T, most int, o ipc.Options) (string, *ipctest.Backend) {
	t.Helper()
	testutil.LeakCheck(t)
	b := ipctest.NewBackend()
	b.Bytes = most
	path, _ := serveBackend(t, b, o)
	return path, b
}

// Unfinished lines count for their user: what goes beyond is read and refused, and
// the connection lives on.
func TestUnfinishedLines(t *testing.T) {
	path, b := serveBytes(t, 256<<10, ipc.Options{})
	var holders []*raw
	for range 2 {
		c := dial(t, path)
		c.write(bigCall("1", "Echo", 100<<10)) // needs a buffer of 128 KiB
		holders = append(holders, c)
	}
	eventually(t, "both lines are read", func() bool { return b.BytesHeld() == 2*126<<10 })
	c := dial(t, path)
	a := c.want(c.ask(bigCall("mine", "Echo", 100<<10)), "mine", "over_budget")
	if want := `"tester has 258048 of 262144 bytes; nothing was done"`; string(a.Data) != want {
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
	eventually(t, "all is given back", func() bool { return b.BytesHeld() == 0 })
	// A line that is thrown away has its limit too.
	c.write(strings.Repeat("x", 3*api.MaxLine))
	c.want(c.answer(), "null", "too_large")
	c.eof()
}

// What calls in flight hold counts too, until they are answered.
func TestBytesInFlight(t *testing.T) {
	path, b := serveBytes(t, 340<<10, ipc.Options{})
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
	if held := b.BytesHeld(); held < 2*(126+20)<<10 {
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
	eventually(t, "all is given back", func() bool { return b.BytesHeld() == 0 })
}

// Whatever way a request goes, what it held is given back.
func TestBytesGivenBack(t *testing.T) {
	path, b, _ := serve(t, ipc.Options{})
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
	if b.BytesHeld() == 0 {
		t.Error("the listen request counts for nothing")
	}
	c.want(c.ask(`{"id":"2","type":"unlisten","protocol":"Mine"}`), "2", "ok")
	c.want(c.ask(`{"id":"1","type":"stream","target":"self","protocol":"Echo","data":`+long+`}`), "1", "streaming")
	if b.BytesHeld() == 0 {
		t.Error("the stream request counts for nothing")
	}
	c.CloseWrite()
	c.eof()
	eventually(t, "all is given back", func() bool { return b.BytesHeld() == 0 })
}

// A user's unfinished lines cost the daemon what the budget allows, however many
// connections they come on.
func TestUnfinishedLinesCost(t *testing.T) {
	path, _ := serveBytes(t, 8<<20, ipc.Options{})
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

// handleBig answers small calls with n bytes of data.
func handleBig(b *ipctest.Backend, n int) {
	answer := json.RawMessage(`"` + strings.Repeat("x", n-2) + `"`)
	b.Handle("Big", router.HandlerFunc(func(context.Context, *router.Request) (json.RawMessage, error) { return answer, nil }))
}

func bigAnswer(id int) string {
	return fmt.Sprintf(`{"id":"%d","type":"call","target":"self","protocol":"Big"}`, id)
}

// Large answers that a user leaves unread hold what the budget allows; those that
// find no room are told to be lost, in their place.
func TestUnreadAnswers(t *testing.T) {
	const most, size, calls = 1 << 20, 200 << 10, 20
	path, b := serveBytes(t, most, ipc.Options{WriteTimeout: time.Hour}) // who does not read yet, on a busy machine
	handleBig(b, size)
	readers := []*raw{dial(t, path), dial(t, path)}
	for i := range calls {
		for _, c := range readers {
			c.send(bigAnswer(i))
		}
	}
	// Besides those that are counted, one of each connection may be in its socket.
	const room = most / size
	eventually(t, "all are done, and the budget is used up", func() bool { return b.NoRoom() >= 2*calls-(room+2) })
	done, lost := 0, 0
	for _, c := range readers {
		for range calls {
			a := c.answer()
			switch {
			case a.Status == api.StatusOK && len(a.Data) == size:
				done++
			case a.Code == api.CodeOverBudget && strings.Contains(string(a.Data), "the request was done, but there is no room for its answer of 204800 bytes"):
				lost++
			default:
				t.Fatalf("%.200s: %s", a.Data, a.Code)
			}
		}
		c.works()
	}
	if done < room || done > room+2 || lost != 2*calls-done {
		t.Errorf("%d answers came, %d were lost", done, lost)
	}
	eventually(t, "all is given back", func() bool { return b.BytesHeld() == 0 })
	// Another one leaves without having read.
	c, before := dial(t, path), b.NoRoom()
	for i := range calls {
		c.send(bigAnswer(i))
	}
	eventually(t, "the budget is used up again", func() bool { return b.NoRoom()-before >= calls-(room+1) })
	c.Close()
	eventually(t, "all is given back again", func() bool { return b.BytesHeld() == 0 && b.InUse("connections") == len(readers) })
}

// Small answers that wait count too. They are never lost: who asks for more waits,
// and its connection ends as that of any client that does not read.
func TestUnreadSmallAnswers(t *testing.T) {
	const most, size, calls = 64 << 10, 1 << 10, 2000
	path, b := serveBytes(t, most, ipc.Options{})
	handleBig(b, size)
	stuck, other := dial(t, path), dial(t, path)
	go func() {
		for i := range calls {
			stuck.send(bigAnswer(i))
		}
	}()
	eventually(t, "the budget is used up", func() bool { return b.BytesHeld() > most-2*size })
	for i := range 100 {
		other.want(other.ask(bigAnswer(i)), fmt.Sprint(i), "ok")
	}
	for range calls {
		if a := stuck.answer(); a.Status != api.StatusOK {
			t.Fatalf("%+v", a)
		}
	}
	stuck.works()
	eventually(t, "all is given back", func() bool { return b.BytesHeld() == 0 })
}
