package fire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// Bytes of messages.db that change, in a message or in the file's first page,
// below a daemon that runs and one that does not: what is damaged is set aside,
// told and counted; all else is delivered, and no daemon ends.
func TestMailOnADamagedDisk(t *testing.T) {
	t.Parallel()
	x, y := pair(t, process.Options{Stderr: quiet{}})
	w := &damaged{t: t, x: x, y: y}
	for round := range testutil.Rounds(1, 20) {
		w.stop(y)
		from := w.send(100)
		w.stop(x)
		w.flip(x, from+20)
		w.run(x)
		w.run(y)
		emptyOutbox(t, x, "")
		w.check("a message of the outbox", x, round+1)

		w.stop(y)
		w.flip(y, from+40)
		w.run(y)
		w.check("a message of the inbox", y, 2*round+1)
		w.flip(y, from+60) // below a daemon that runs, which may remember how it was
		w.send(10)
		emptyOutbox(t, x, "")
		allMail(t, y)
		w.kill(y)
		w.check("a message of the inbox, while it ran", y, 2*round+2)

		for _, d := range []*process.Daemon{x, y} {
			w.smash(d, rand.N(400)) // below a daemon that runs; not all of the page is in use
			w.send(10)
			emptyOutbox(t, x, "")
			w.kill(d)
			w.send(10)
			w.stop(d)
			w.smash(d, rand.N(15)) // what says that it is a database
			w.run(d)
			w.send(10)
			emptyOutbox(t, x, "")
			w.check("the first page", nil, 0)
			if p := problems(t, d); !slices.ContainsFunc(p, func(p api.Problem) bool {
				return strings.Contains(p.Text, "have been repaired") || strings.Contains(p.Text, "the messages were damaged")
			}) {
				t.Errorf("nothing is told of the repair: %+v", p)
			}
		}
		if t.Failed() {
			return
		}
	}
}

// damaged is a pair with what x sent to y.
type damaged struct {
	t    *testing.T
	x, y *process.Daemon
	lost []bool // by number: it was damaged on the disk
}

func (w *damaged) text(n int) string {
	return fmt.Sprintf("message %06d %s", n, strings.Repeat("x", n%200))
}

func (w *damaged) send(n int) (from int) {
	w.t.Helper()
	from = len(w.lost)
	for range n {
		if _, err := w.x.Client.Send(w.t.Context(), client.Message{Target: "peer", Protocol: api.ProtocolText, Data: textData(w.text(len(w.lost)))}); err != nil {
			w.t.Fatal(full(err))
		}
		w.lost = append(w.lost, false)
	}
	return from
}

func (w *damaged) stop(d *process.Daemon) {
	w.t.Helper()
	if err := d.Stop(); err != nil {
		w.t.Fatal(err)
	}
}

// kill kills d and starts it again.
func (w *damaged) kill(d *process.Daemon) {
	w.t.Helper()
	if err := d.Kill(); err != nil {
		w.t.Fatal(err)
	}
	w.run(d)
}

func (w *damaged) run(d *process.Daemon) {
	w.t.Helper()
	if err := d.Run(context.WithoutCancel(w.t.Context())); err != nil {
		w.t.Fatal(full(err))
	}
}

// change alters a daemon's messages.db.
func (w *damaged) change(d *process.Daemon, alter func(b []byte) (at int, now []byte)) {
	w.t.Helper()
	path := filepath.Join(d.Home, "messages.db")
	b, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	at, now := alter(b)
	if _, err := f.WriteAt(now, int64(at)); err != nil {
		w.t.Fatal(err)
	}
}

// flip changes message n on the disk.
func (w *damaged) flip(d *process.Daemon, n int) {
	w.t.Helper()
	w.lost[n] = true
	w.change(d, func(b []byte) (int, []byte) {
		at := bytes.Index(b, []byte(fmt.Sprintf("message %06d", n)))
		if at < 0 {
			w.t.Fatalf("message %d is not in the file", n)
		}
		return at, []byte("M")
	})
}

// smash overwrites some of the first page.
func (w *damaged) smash(d *process.Daemon, at int) {
	w.t.Helper()
	w.change(d, func(b []byte) (int, []byte) {
		junk := make([]byte, 1+rand.N(300))
		for i := range junk {
			junk[i] = b[at+i] ^ byte(1+rand.N(255))
		}
		return at, junk
	})
}

// check compares y's inbox with what is to be there, and of d, if there is one, how
// many messages it says were damaged.
func (w *damaged) check(what string, d *process.Daemon, count int) {
	w.t.Helper()
	var want, got []string
	for n, lost := range w.lost {
		if !lost {
			want = append(want, w.text(n))
		}
	}
	for _, m := range allMail(w.t, w.y) {
		var text struct{ Text string }
		if err := json.Unmarshal(m.Data, &text); err != nil {
			w.t.Error(err)
		}
		got = append(got, text.Text)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: %d messages are there, want %d", what, len(got), len(want))
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				w.t.Errorf("number %d is %.40q, want %.40q", i, got[i], want[i])
				break
			}
		}
	}
	if d == nil {
		return
	}
	told := fmt.Sprintf("%d messages were found changed", count)
	if count == 1 {
		told = "1 message was found changed"
	}
	if p := problems(w.t, d); !slices.ContainsFunc(p, func(p api.Problem) bool { return strings.Contains(p.Text, told) }) {
		w.t.Errorf("%s: the problems are %+v, want %q", what, p, told)
	}
}
