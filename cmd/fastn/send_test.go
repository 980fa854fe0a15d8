package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// waited is a daemon of which only the waiting for a message is asked.
type waited struct {
	daemon
	final func() (api.OutboxMessage, error)
}

func (w waited) WaitFinal(context.Context, string) (api.OutboxMessage, error) { return w.final() }

// Whatever ends a wait for a message that was taken, its id is told, and what
// becomes of it.
func TestSendWaits(t *testing.T) {
	const id = "123e4567-e89b-42d3-a456-426614174010"
	over := api.Errorf(api.CodeTimeout, "the time is over")
	queued := api.OutboxMessage{MessageID: id, State: api.StateQueued, Reason: "peer not reachable"}
	for _, test := range []struct {
		name      string
		m         api.OutboxMessage
		err       error
		interrupt bool
		state     string // with --json
		code      int
		want      string
	}{
		{"away", api.OutboxMessage{}, over, false, api.StateQueued, exitNotDelivered,
			`fastn: queued, not delivered within 30s: your own daemon went away meanwhile: cannot reach the fastn daemon at HOME/daemon.sock: no such file or directory
hint: start it with "fastn --home HOME daemon start"; the message is on its disk, and goes on once it runs
`},
		{"away since it told", queued, over, false, api.StateQueued, exitNotDelivered,
			`fastn: queued, not delivered within 30s: your own daemon went away meanwhile: cannot reach the fastn daemon at HOME/daemon.sock: no such file or directory
hint: start it with "fastn --home HOME daemon start"; the message is on its disk, and goes on once it runs
`},
		{"interrupted", api.OutboxMessage{}, context.Canceled, true, api.StateQueued, exitNotDelivered,
			"fastn: interrupted; message " + id + " stays queued\n"},
		{"delivered in the moment of an interruption", api.OutboxMessage{State: api.StateDelivered}, nil, true, api.StateDelivered, exitDone, ""},
		{"cancelled", api.OutboxMessage{State: api.StateCancelled}, nil, false, api.StateCancelled, exitFailed,
			"fastn: the message was cancelled\nhint: \"fastn --home HOME send bob TEXT\" sends it as a new message\n"},
		{"failed", api.OutboxMessage{}, api.Errorf(api.CodeStorage, "the disk is broken").WithHint("mend it"), false, api.StateQueued, exitFailed,
			"fastn: the disk is broken\nhint: mend it\n"},
	} {
		for _, asJSON := range []bool{false, true} {
			if asJSON && test.err != nil && !test.interrupt {
				continue // the error's form is tested elsewhere
			}
			home := t.TempDir()
			out, stderr := create(t), create(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			a := newApp(ctx, stdio{os.Stdin, out, stderr})
			a.flags.Home, a.flags.JSON = home, asJSON
			c := &sendCmd{Target: "bob", Wait: "delivered"}
			err := c.wait(a, waited{final: func() (api.OutboxMessage, error) {
				if test.interrupt {
					cancel()
				}
				return test.m, test.err
			}}, api.SendResult{MessageID: id, State: api.StateQueued})
			want := id + "\n"
			if asJSON {
				want = `{"message_id":"` + id + `","state":"` + test.state + `"}` + "\n"
			}
			if got := content(t, out); got != want {
				t.Errorf("%s: on standard output %q, want %q", test.name, got, want)
			}
			if exitCode(err) != test.code {
				t.Errorf("%s: exit code %d, want %d: %v", test.name, exitCode(err), test.code, err)
			}
			if err != nil {
				a.printError(err)
			}
			if got, want := content(t, stderr), strings.ReplaceAll(test.want, "HOME", home); got != want && !asJSON {
				t.Errorf("%s: got\n%swant\n%s", test.name, got, want)
			}
		}
	}
}

func create(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func content(t *testing.T, f *os.File) string {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
