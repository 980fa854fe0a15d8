package messages

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// Who sends and cancels, or receives and removes, leaves the memory of it. That has
// a bound of its own for each user, and for each peer: it closes nobody else's mail.
func TestStoredBudgets(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	b.limits.PerUIDStoredMessages, b.limits.PerPeerStoredMessages = 10, 4
	for i := range 6 {
		m := lane.message(fmt.Sprint(i), "x")
		_, err := b.Put(t.Context(), m)
		b.must(err)
		_, err = b.Cancel(t.Context(), lane.From, m.ID)
		b.must(err)
	}
	in := Lane{id("c"), id("A"), "Text", "default"} // the same user's other identity
	remove := func(l Lane, n int) {
		t.Helper()
		for i := range n {
			got := b.take(l.message(fmt.Sprint(i), "x"))
			if !got[0].Fresh {
				t.Fatalf("%+v", got)
			}
			b.must(b.Remove(t.Context(), l.To, got[0].Seq))
		}
	}
	refused := func(l Lane, want string) {
		t.Helper()
		err := b.take(l.message("new", "x"))[0].Err
		if wantCode(t, err, api.CodeOverBudget); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	remove(in, 3)
	b.limits.PerPeerStoredMessages = 3
	refused(in, "stored messages (3)")
	other := in
	other.From = id("b")
	remove(other, 1)
	refused(other, "stored messages of all senders (10)")
	for range 2 { // before and after a restart
		_, err := b.Put(t.Context(), lane.message("new", "x"))
		if s := fmt.Sprint(err); api.CodeOf(err) != api.CodeOverBudget || !strings.Contains(s, "user1 has 10 of 10 stored messages ("+settingStored+")") {
			t.Errorf("got %v", err)
		}
		if out, err := b.Put(t.Context(), lane.message("1", "x")); err != nil || out.State != Cancelled {
			t.Errorf("a retry of what is known: %+v, %v", out, err)
		}
		b.checkUsage()
		b.reopen()
	}
	remove(Lane{id("a"), id("b"), "Text", "default"}, 2) // another user's
	_, err := b.Put(t.Context(), Lane{id("b"), id("c"), "Text", "default"}.message("1", "x"))
	b.must(err)

	b.clock.advance(61 * day)
	b.must(b.Prune(t.Context()))
	b.checkUsage()
	_, err = b.Put(t.Context(), lane.message("new", "x"))
	b.must(err)
	if got := b.take(in.message("new", "x")); !got[0].Fresh {
		t.Errorf("after 61 days: %+v", got)
	}
	b.must(b.Forget(t.Context(), id("A")))
	b.checkUsage()
}

// No more of what is kept for Retry gives way than a new message needs, nothing if
// that would not be enough, and who wants it again is told the truth.
func TestKeptDataGivesWayToNoMoreThanIsNeeded(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	size := int64(len(text("text of 1")))
	other := Lane{id("A"), lane.To, lane.Protocol, lane.Instance} // the same user's
	for i, l := range []Lane{lane, lane, other} {
		m := b.put(l, fmt.Sprint(i+1))[0]
		b.must(b.Settle(t.Context(), l, []Outcome{{Seq: m.Seq, ID: m.ID, State: Refused}}, nil))
	}
	kept := func(want ...bool) {
		t.Helper()
		for i, l := range []Lane{lane, lane, other} {
			if o := b.state(l.From, fmt.Sprint(i+1)); (o.Data != nil) != want[i] {
				t.Errorf("message %d: data is there: %v, want %v", i+1, o.Data != nil, want[i])
			}
		}
	}
	b.limits.PerUIDQueuedBytes = 3 * size
	_, err := b.Put(t.Context(), lane.message("large", strings.Repeat("x", int(4*size))))
	wantCode(t, err, api.CodeOverBudget)
	kept(true, true, true)
	b.put(lane, "4")
	kept(false, true, true)
	b.put(lane, "5")
	kept(false, false, true)
	b.put(lane, "6")
	kept(false, false, false)
	_, err = b.Retry(t.Context(), lane.From, "1")
	if s := fmt.Sprint(err); api.CodeOf(err) != api.CodeExpired || strings.Contains(s, "old") || !strings.Contains(s, "dropped to make room") {
		t.Error(err)
	}
	_, err = b.Put(t.Context(), lane.message("7", "x"))
	wantCode(t, err, api.CodeOverBudget)
	b.checkUsage()
}
