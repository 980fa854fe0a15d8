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
