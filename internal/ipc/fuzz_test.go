package ipc_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/ipc/ipctest"
	"github.com/fastn-stack/fastnd/service/api"
)

// FuzzConnection plays a script (see player) on up to three connections of one
// client, and holds the daemon to PROTOCOL.md: whatever comes, in whatever
// pieces, each line has exactly one answer with its id, a connection ends only
// where it may, and nothing is left behind.
func FuzzConnection(f *testing.F) {
	f.Add([]byte(`{"id":"1","type":"hello"}` + "\n~r"))
	f.Fuzz(func(t *testing.T, script []byte) {
		goroutines, files := runtime.NumGoroutine(), descriptors(t)
		b := ipctest.NewBackend()
		b.Requests, b.Streams, b.Bytes = 8, 2, 200<<10
		path := fuzzSocket()
		_, stop := ipctest.Start(t, path, b, ipc.Options{})
		p := &player{t: t, b: b, path: path}
		p.play(script)
		p.finish()
		eventually(t, "budgets return", func() bool {
			return b.InUse("connections")+b.InUse(ipc.BudgetRequests)+b.InUse(ipc.BudgetStreams)+b.BytesHeld()+b.Listening() == 0
		})
		stop()
		if n := descriptors(t); n != files { // at once, before finalizers mend it
			t.Errorf("%d descriptors were open, now %d", files, n)
		}
		for end := time.Now().Add(fuzzPatience); runtime.NumGoroutine() > goroutines; time.Sleep(100 * time.Microsecond) {
			if time.Now().After(end) {
				t.Fatalf("%d goroutines before, %d after", goroutines, runtime.NumGoroutine())
			}
		}
	})
}

var fuzzSockets atomic.Int64

// fuzzSocket names an abstract socket: thousands a second need no folders.
func fuzzSocket() string {
	return fmt.Sprintf("@fastn-fuzz-%d-%d", os.Getpid(), fuzzSockets.Add(1))
}

// player plays a script. Its text goes to the connection at hand; "~" begins what
// is no text:
//
//	~1 ~2 ~3  go to this connection, and open it if need be
//	~|        what stands before is one write
//	~r        wait a moment for one more line from the daemon
//	~w ~x     end the client's direction; close
//	~f        what follows up to the next ~ is sent with a descriptor
//	~i        the id of the latest incoming call or stream, as text
//	~L ~M     a text that is as long as a line may be; one for which there is no room
//	~e        an event happens
//	~~        a tilde
type player struct {
	t        *testing.T
	b        *ipctest.Backend
	path     string
	clients  [3]*scripted
	now      int
	text     []byte
	withFile bool
	silences int // times that waiting was in vain
	long     int // bytes of ~L and ~M
	listens  bool
}

func (p *player) play(script []byte) {
	p.listens = bytes.Contains(script, []byte("listen"))
	for len(script) > 0 {
		plain, rest, found := bytes.Cut(script, []byte("~"))
		p.text = append(p.text, plain...)
		if script = rest; found && len(script) > 0 {
			p.do(script[0])
			script = script[1:]
		}
	}
	p.send()
}

func (p *player) do(op byte) {
	switch op {
	case '~':
		p.text = append(p.text, '~')
		return
	case 'i':
		p.text = append(p.text, p.incoming()...)
		return
	case 'L', 'M':
		n := map[byte]int{'L': api.MaxLine - 1, 'M': 300 << 10}[op]
		if p.long += n; p.long < 2*api.MaxLine { // more cost time and show little
			p.text = append(p.text, strings.Repeat("x", n)...)
		}
		return
	}
	p.send()
	switch op {
	case '1', '2', '3':
		p.now = int(op - '1')
	case 'r':
		if p.silences < 4 && !p.client().waitLine() { // more would only cost time
			p.silences++
		}
	case 'w':
		p.client().end()
	case 'x':
		p.client().close()
	case 'f':
		p.withFile = true
	case 'e':
		p.b.Events.Publish(api.Event{Kind: api.EventReloaded})
	}
}

func (p *player) client() *scripted {
	c := p.clients[p.now]
	if c == nil || c.over {
		if c != nil {
			c.check(p.listens)
		}
		c = newScripted(p.t, p.path)
		p.clients[p.now] = c
	}
	return c
}

func (p *player) send() {
	if len(p.text) > 0 {
		p.client().send(p.text, p.withFile)
	}
	p.text, p.withFile = p.text[:0], false
}

// incoming is the latest id that any connection was told.
func (p *player) incoming() string {
	for _, c := range p.clients {
		if c != nil {
			if id := c.lastIncoming(); id != "" {
				return id
			}
		}
	}
	return ""
}

// finish lets nothing wait for what will never come, and checks each connection.
func (p *player) finish() {
	p.b.Withdraw()
	for _, c := range p.clients {
		if c != nil {
			c.settle()
		}
	}
	for _, c := range p.clients {
		if c != nil {
			c.close()
			c.check(p.listens)
		}
	}
}
