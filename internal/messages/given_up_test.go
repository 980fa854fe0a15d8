package messages

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// What was refused or has expired is shown until its sender gives it up; what
// came to its end otherwise is not.
func TestUndeliveredAreShownUntilGivenUp(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	ms := b.put(lane, "1", "2", "3", "4")
	b.must(b.Settle(t.Context(), lane, []Outcome{{Seq: ms[0].Seq, ID: ms[0].ID, State: Delivered}, {Seq: ms[1].Seq, ID: ms[1].ID, State: Refused, Code: api.CodeRefused}}, nil))
	_, err := b.Cancel(t.Context(), lane.From, "4")
	b.must(err)
	b.clock.advance(DefaultLife)
	_, err = b.Expire(t.Context())
	b.must(err)
	b.put(lane, "5")
	shown := func() (got []string) {
		t.Helper()
		list, err := b.ListOut(t.Context(), lane.From, Page{}, false)
		b.must(err)
		for _, m := range list {
			got = append(got, m.ID+" "+m.State.String())
		}
		return got
	}
	if got := shown(); !slices.Equal(got, []string{"2 refused", "3 expired", "5 queued"}) {
		t.Errorf("%v", got)
	}
	for _, id := range []string{"2", "3"} {
		if out, err := b.Cancel(t.Context(), lane.From, id); err != nil || out.State != Cancelled {
			t.Errorf("%s: %+v, %v", id, out, err)
		}
	}
	if got := shown(); !slices.Equal(got, []string{"5 queued"}) {
		t.Errorf("given up: %v", got)
	}
	if _, err := b.Cancel(t.Context(), lane.From, "1"); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("delivered: %v", err)
	}
	if _, err := b.Retry(t.Context(), lane.From, "2"); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("given up and sent again: %v", err)
	}
	b.checkUsage()
}

// What was cancelled, or expired, on its way and arrived is delivered: so its sender
// is told, and so the budgets count it.
func TestGivenUpOnItsWay(t *testing.T) {
	b := newBox(t)
	ms := b.put(lane, "cancelled", "expired")
	_, err := b.Cancel(t.Context(), lane.From, "cancelled")
	b.must(err)
	b.clock.advance(DefaultLife)
	_, err = b.Expire(t.Context())
	b.must(err)
	for i := range 2 {
		b.must(b.Settle(t.Context(), lane, []Outcome{{Seq: ms[0].Seq, ID: ms[0].ID, State: Delivered}, {Seq: ms[1].Seq, ID: ms[1].ID, State: Delivered}}, nil))
		for _, m := range ms {
			if got := b.state(lane.From, m.ID); got.State != Delivered || got.Data != nil || got.Code != "" || got.Size != int64(len(m.Data)) {
				t.Errorf("%d: %+v", i, got)
			}
		}
		b.checkUsage()
		if u := b.use.queued(1); u.messages != 0 || u.bytes != 0 {
			t.Errorf("%d: %+v are queued", i, u)
		}
	}
}

func TestCancelledOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.is(func(m *router.Mail) ([]error, error) {
			if _, err := r.Cancel(context.Background(), lane.From, "1"); err != nil {
				t.Error(err)
			}
			return taken(m)
		})
		r.send(lane, "1")
		r.wantStates("1 delivered")
		if told := r.told(api.EventMessageDelivered); len(told) != 1 {
			t.Errorf("told %d times", len(told))
		}
	})
}

// A message whose time is over, and that no look has found expired yet, gets a new
// life as an expired one does.
func TestRetryOfOneWhoseTimeIsOver(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	m := lane.message("1", "one")
	m.Created = b.clock.Now()
	m.Expires = m.Created.Add(time.Second)
	_, err := b.Put(t.Context(), m)
	b.must(err)
	b.must(b.Settle(t.Context(), lane, nil, &Wait{Code: api.CodePeerUnreachable, Reason: "away", NextTry: b.clock.Now()}))
	b.clock.advance(time.Minute)
	o, err := b.Retry(t.Context(), lane.From, "1")
	if err != nil || o.State != Queued || !o.Expires.Equal(b.clock.Now().Add(DefaultLife)) {
		t.Errorf("%+v, %v", o, err)
	}
	if o := b.state(lane.From, "1"); o.State != Queued || o.Reason != "" || !o.Expires.Equal(b.clock.Now().Add(DefaultLife)) {
		t.Errorf("%+v", o)
	}
	if list := b.head(lane); len(list) != 1 {
		t.Errorf("%+v are to be delivered", list)
	}
	b.checkUsage()
}
