package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// sendText queues messages of a long life and gives their ids.
func sendText(d *testDaemon, n int) (ids []string) {
	d.t.Helper()
	for i := range n {
		ids = append(ids, d.send(client.Message{Target: "bob", Data: text(fmt.Sprint("message ", i)), Life: api.MaxMessageLife}).MessageID)
	}
	return ids
}

func sentStates(t *testing.T, d *testDaemon) map[string]int {
	t.Helper()
	states := make(map[string]int)
	for _, m := range verb[api.OutboxPage](t, d.c, api.VerbOutboxList, api.OutboxListArgs{All: true}).Messages {
		states[m.State]++
	}
	return states
}

func wantInbox(t *testing.T, d *testDaemon, want []string) {
	t.Helper()
	var got []string
	for _, m := range verb[api.InboxPage](t, d.c, api.VerbInboxList, nil).Messages {
		got = append(got, m.MessageID)
	}
	wantNames(t, "the inbox", got, want...)
}

// restored is home as an older copy of it, which is used up.
func restored(t *testing.T, home, older string) {
	t.Helper()
	if err := os.RemoveAll(home); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(older, home); err != nil {
		t.Fatal(err)
	}
}

// copyHome copies the home of a daemon that is stopped.
func copyHome(t *testing.T, d *testDaemon) string {
	t.Helper()
	older := newHome(t)
	if out, err := exec.Command("cp", "-a", d.home+"/.", older).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return older
}

// A sender that does not know what its receiver has, since the answer never
// came or its disk is an old copy, sends it again, days later: there it is known,
// also what was removed. When the receiver has forgotten, it is sent no more.
func TestMailSentAgainDaysLater(t *testing.T) {
	testutil.LeakCheck(t)
	for _, c := range []struct {
		after time.Duration
		state string
	}{{5 * 24 * time.Hour, api.StateDelivered}, {29 * 24 * time.Hour, api.StateDelivered}, {61 * 24 * time.Hour, api.StateExpired}} {
		t.Run(fmt.Sprint(c.after), func(t *testing.T) {
			now := new(clock)
			alice, bob := start(t, opts{clock: now}), start(t, opts{clock: now})
			meet(t, alice, bob)
			bob.stop()
			const n = 5
			ids := sendText(alice, n)
			alice.stop()
			older := copyHome(t, alice)
			bob, alice = bob.again(t, opts{clock: now}), alice.again(t, opts{clock: now})
			eventually(t, "all is delivered", func() bool { return sentStates(t, alice)[api.StateDelivered] == n })
			verb[api.InboxMessage](t, bob.c, api.VerbInboxRemove, api.InboxArgs{MessageID: ids[0]})
			wantInbox(t, bob, ids[1:])

			alice.stop()
			bob.stop()
			restored(t, alice.home, older)
			now.forward(c.after)
			bob, alice = bob.again(t, opts{clock: now}), alice.again(t, opts{clock: now})
			if problem := "the clock is "; !strings.Contains(fmt.Sprint(alice.status().Problems), problem) {
				t.Errorf("%+v, want that %s…", alice.status().Problems, problem)
			}
			now.pass(2 * time.Hour) // until the clocks are believed
			if err := bob.node.Load().mail.store.Prune(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := alice.node.Load().mail.store.Expire(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the old copy's messages are "+c.state, func() bool { return sentStates(t, alice)[c.state] == n })
			wantInbox(t, bob, ids[1:])
			more := sendText(alice, 1)
			eventually(t, "a new message arrives", func() bool { return sentStates(t, alice)[api.StateDelivered] > 0 })
			if c.state == api.StateDelivered {
				eventually(t, "a new message arrives", func() bool { return sentStates(t, alice)[api.StateDelivered] == n+1 })
			}
			wantInbox(t, bob, append(ids[1:], more...))
		})
	}
}

// Both sides go back to an older copy: what was queued then is delivered again.
// Where only the receiver goes back, what it received since is gone: its sender
// has it as delivered.
func TestMailAfterTheReceiverWasRestored(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	bob.stop()
	ids := sendText(alice, 3)
	alice.stop()
	olderAlice, olderBob, olderBob2 := copyHome(t, alice), copyHome(t, bob), copyHome(t, bob)
	bob, alice = bob.again(t, opts{}), alice.again(t, opts{})
	eventually(t, "all is delivered", func() bool { return sentStates(t, alice)[api.StateDelivered] == 3 })
	bob.stop()
	restored(t, bob.home, olderBob)
	bob = bob.again(t, opts{})
	more := sendText(alice, 1)
	eventually(t, "a new message arrives", func() bool { return sentStates(t, alice)[api.StateDelivered] == 4 })
	wantInbox(t, bob, more)

	alice.stop()
	bob.stop()
	restored(t, alice.home, olderAlice)
	restored(t, bob.home, olderBob2)
	bob, alice = bob.again(t, opts{}), alice.again(t, opts{})
	eventually(t, "all is delivered again", func() bool { return sentStates(t, alice)[api.StateDelivered] == 3 })
	wantInbox(t, bob, ids)
}
