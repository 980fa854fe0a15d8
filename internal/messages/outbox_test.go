package messages

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

func TestPutAndSettle(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	b.put(lane, "1", "2", "3", "4")
	o := b.state(lane.From, "2")
	if o.State != Queued || string(o.Data) != `{"text":"text of 2"}` || o.Seq == 0 || !o.Created.Equal(b.clock.Now()) || o.Expires.Sub(o.Created) != DefaultLife {
		t.Errorf("queued: %+v", o)
	}
	ms := b.head(lane)
	if got := ids(ms); !slices.Equal(got, []string{"1", "2", "3", "4"}) || ms[0].Lane() != lane {
		t.Fatalf("head %v", got)
	}
	next := b.clock.Now().Add(time.Minute)
	b.must(b.Settle(t.Context(), lane, []Outcome{
		{Seq: ms[0].Seq, ID: ms[0].ID, State: Delivered},
		{Seq: ms[1].Seq, ID: ms[1].ID, State: Refused, Code: api.CodeTooLarge, Reason: "too long"},
	}, &Wait{api.CodeOverBudget, "full", next}))
	b.reopen()
	if o := b.state(lane.From, "1"); o.State != Delivered || o.Data != nil || !o.Done.Equal(b.clock.Now()) {
		t.Errorf("delivered: %+v", o)
	}
	if o := b.state(lane.From, "2"); o.State != Refused || o.Code != api.CodeTooLarge || o.Reason != "too long" || o.Data == nil {
		t.Errorf("refused: %+v", o)
	}
	if o := b.state(lane.From, "4"); o.State != Queued || o.Code != api.CodeOverBudget || o.Reason != "full" || !o.NextTry.Equal(next) || o.Tries != 1 {
		t.Errorf("waiting: %+v", o)
	}
	if got := ids(b.head(lane)); !slices.Equal(got, []string{"3", "4"}) {
		t.Errorf("head %v", got)
	}
	list, err := b.ListOut(t.Context(), lane.From, Page{}, true)
	if err != nil || len(list) != 4 || list[1].State != Refused || list[2].Reason != "full" {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err = b.ListOut(t.Context(), lane.From, Page{After: list[2].Seq}, false); err != nil || len(list) != 1 || list[0].ID != "4" {
		t.Errorf("%+v, %v", list, err)
	}
	b.checkUsage()
}

func TestPutIsIdempotent(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	first := b.put(lane, "1")[0]
	b.clock.advance(time.Hour)
	if again := b.put(lane, "1")[0]; again.Seq != first.Seq || !again.Created.Equal(first.Created) {
		t.Errorf("%+v, then %+v", first, again)
	}
	for what, m := range map[string]Message{
		"text":     lane.message("1", "another"),
		"receiver": Lane{lane.From, id("c"), lane.Protocol, lane.Instance}.message("1", "text of 1"),
		"protocol": Lane{lane.From, lane.To, "Other", lane.Instance}.message("1", "text of 1"),
		"instance": Lane{lane.From, lane.To, lane.Protocol, "other"}.message("1", "text of 1"),
	} {
		if _, err := b.Put(t.Context(), m); api.CodeOf(err) != api.CodeConflict {
			t.Errorf("other %s: %v", what, err)
		}
	}
	// Another sender's id is another id.
	b.put(Lane{id("c"), lane.To, lane.Protocol, lane.Instance}, "1")

	b.must(b.Settle(t.Context(), lane, []Outcome{{Seq: first.Seq, ID: first.ID, State: Delivered}}, nil))
	b.limits.PerUIDQueuedMessages = 1
	b.put(lane, "2") // now alice has no room
	if o, err := b.Put(t.Context(), lane.message("1", "text of 1")); err != nil || o.State != Delivered {
		t.Errorf("a retry after delivery: %+v, %v", o, err)
	}
	if _, err := b.Put(t.Context(), lane.message("1", "another")); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a conflict after delivery: %v", err)
	}
	// Nothing is queued twice by callers that come together.
	b.limits = bigLimits()
	done := make(chan error, 20)
	for range cap(done) {
		go func() { _, err := b.Put(t.Context(), lane.message("3", "same")); done <- err }()
	}
	for range cap(done) {
		b.must(<-done)
	}
	if got := ids(b.head(lane)); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("%v", got)
	}
	b.checkUsage()
}

func TestPutRefuses(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	now := b.clock.Now()
	for what, c := range map[string]struct {
		change func(m *Message)
		code   api.Code
	}{
		"no id":       {func(m *Message) { m.ID = "" }, api.CodeBadRequest},
		"long id":     {func(m *Message) { m.ID = strings.Repeat("x", 257) }, api.CodeBadRequest},
		"no protocol": {func(m *Message) { m.Protocol = "" }, api.CodeBadRequest},
		"no receiver": {func(m *Message) { m.To = id("") }, api.CodeBadRequest},
		"not JSON":    {func(m *Message) { m.Data = []byte("{") }, api.CodeBadRequest},
		"no data":     {func(m *Message) { m.Data = nil }, api.CodeBadRequest},
		"too large":   {func(m *Message) { m.Data = text(strings.Repeat("x", api.MaxPayload)) }, api.CodeTooLarge},
		"31 days":     {func(m *Message) { m.Expires = now.Add(MaxLife + time.Second) }, api.CodeBadRequest},
		"over":        {func(m *Message) { m.Expires = now }, api.CodeBadRequest},
		"nobody's":    {func(m *Message) { m.From = id("x") }, api.CodeNotFound},
	} {
		m := lane.message("1", "x")
		c.change(&m)
		if _, err := b.Put(t.Context(), m); api.CodeOf(err) != c.code {
			t.Errorf("%s: %v", what, err)
		}
	}
	if lanes, err := b.Lanes(t.Context()); err != nil || len(lanes) != 0 {
		t.Errorf("%v, %v", lanes, err)
	}
}

func TestHeadIsBounded(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	m := lane.message("", "")
	for i, size := range []int{10, 700, 400, 10, 10} {
		m.ID, m.Data = fmt.Sprint(i), text(strings.Repeat("x", size))
		m.Expires = time.Time{}
		if i == 3 {
			m.Expires = b.clock.Now().Add(time.Minute)
		}
		_, err := b.Put(t.Context(), m)
		b.must(err)
	}
	b.put(Lane{lane.From, lane.To, lane.Protocol, "other"}, "x")
	b.clock.advance(time.Hour)
	for _, c := range []struct {
		messages, bytes int
		want            string
	}{{256, 1000, "0 1"}, {256, 5, "0"}, {256, 0, "0 1 2 4"}, {2, 0, "0 1"}, {256, 1 << 20, "0 1 2 4"}} {
		ms, _, err := b.Head(t.Context(), lane, c.messages, c.bytes)
		if got := strings.Join(ids(ms), " "); err != nil || got != c.want {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

func TestLanes(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	const n = 20
	for round := range 3 {
		for i := range n {
			b.put(Lane{id("a"), id(fmt.Sprint("b", i)), "Text", "default"}, fmt.Sprint(round, "-", i))
		}
	}
	l := Lane{id("a"), id("b7"), "Text", "default"}
	next := b.clock.Now().Add(time.Hour)
	for range 3 {
		b.must(b.Settle(t.Context(), l, nil, &Wait{api.CodePeerUnreachable, "off", next}))
	}
	lanes, err := b.Lanes(t.Context())
	b.must(err)
	seen := map[Lane]Waiting{}
	for _, w := range lanes {
		seen[w.Lane] = w
	}
	if len(lanes) != n || len(seen) != n {
		t.Fatalf("%d lanes, %d different", len(lanes), len(seen))
	}
	for of, w := range seen {
		want := Waiting{Lane: of}
		if of == l {
			want = Waiting{l, api.CodePeerUnreachable, "off", 3, next}
		}
		if !w.NextTry.Equal(want.NextTry) || w.Code != want.Code || w.Reason != want.Reason || w.Tries != want.Tries {
			t.Errorf("%+v, want %+v", w, want)
		}
	}
	// What was delivered begins the count anew; an empty lane has no past.
	ms := b.head(l)
	b.must(b.Settle(t.Context(), l, []Outcome{{Seq: ms[0].Seq, ID: ms[0].ID, State: Delivered}}, &Wait{api.CodePeerUnreachable, "off", next}))
	if o := b.state(l.From, ms[1].ID); o.Tries != 1 {
		t.Errorf("%+v", o)
	}
	b.must(b.Settle(t.Context(), l, []Outcome{{Seq: ms[1].Seq, ID: ms[1].ID, State: Delivered}, {Seq: ms[2].Seq, ID: ms[2].ID, State: Refused}}, &Wait{api.CodePeerUnreachable, "off", next}))
	b.put(l, "new")
	if o := b.state(l.From, "new"); o.Tries != 0 || !o.NextTry.IsZero() || o.Code != "" {
		t.Errorf("%+v", o)
	}
}

func TestCancelAndRetry(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	ms := b.put(lane, "1", "2", "3")
	b.must(b.Settle(t.Context(), lane, []Outcome{{Seq: ms[1].Seq, ID: ms[1].ID, State: Refused, Code: api.CodeRefused, Reason: "no"}},
		&Wait{api.CodePeerUnreachable, "off", b.clock.Now().Add(time.Hour)}))
	for range 2 {
		if o, err := b.Cancel(t.Context(), lane.From, "1"); err != nil || o.State != Cancelled {
			t.Errorf("%+v, %v", o, err)
		}
	}
	if o := b.state(lane.From, "1"); o.State != Cancelled || o.Data != nil {
		t.Errorf("%+v", o)
	}
	_, err := b.Cancel(t.Context(), lane.From, "nix")
	wantCode(t, err, api.CodeNotFound)
	_, err = b.Cancel(t.Context(), id("c"), "3")
	wantCode(t, err, api.CodeNotFound)
	_, err = b.Retry(t.Context(), lane.From, "1")
	wantCode(t, err, api.CodeConflict)

	if o, err := b.Retry(t.Context(), lane.From, "3"); err != nil || !o.NextTry.IsZero() {
		t.Errorf("%+v, %v", o, err)
	}
	b.clock.advance(28 * day)
	expired, err := b.Expire(t.Context())
	if err != nil || len(expired) != 1 || expired[0].ID != "3" || expired[0].State != Expired {
		t.Errorf("%+v, %v", expired, err)
	}
	for _, name := range []string{"2", "3"} {
		o, err := b.Retry(t.Context(), lane.From, name)
		if err != nil || o.State != Queued || !o.Expires.Equal(o.Created.Add(MaxLife)) || string(o.Data) != string(text("text of "+name)) {
			t.Errorf("%+v, %v", o, err)
		}
	}
	if got := ids(b.head(lane)); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("%v", got)
	}
	b.clock.advance(3 * day)
	if expired, err = b.Expire(t.Context()); err != nil || len(expired) != 2 {
		t.Errorf("%+v, %v", expired, err)
	}
	_, err = b.Retry(t.Context(), lane.From, "3")
	wantCode(t, err, api.CodeExpired)
	b.checkUsage()
}

func TestExpire(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	const n = expireAtOnce + 7
	for i := range n {
		m := lane.message(fmt.Sprint(i), "x")
		m.Expires = b.clock.Now().Add(time.Duration(i+1) * time.Minute)
		_, err := b.Put(t.Context(), m)
		b.must(err)
	}
	b.must(b.Settle(t.Context(), lane, nil, &Wait{api.CodePeerUnreachable, "no path", b.clock.Now().Add(time.Hour)}))
	b.clock.advance(time.Minute)
	expired, err := b.Expire(t.Context())
	if err != nil || len(expired) != 1 || expired[0].ID != "0" {
		t.Fatalf("%+v, %v", expired, err)
	}
	b.clock.advance((n - 1) * time.Minute)
	if expired, err = b.Expire(t.Context()); err != nil || len(expired) != n-1 {
		t.Fatalf("%d, %v", len(expired), err)
	}
	if o := b.state(lane.From, "0"); o.State != Expired || o.Code != api.CodePeerUnreachable || o.Reason != "no path" {
		t.Errorf("%+v", o)
	}
	if lanes, err := b.Lanes(t.Context()); err != nil || len(lanes) != 0 {
		t.Errorf("%v, %v", lanes, err)
	}
	b.put(lane, "new")
	if o := b.state(lane.From, "new"); o.Reason != "" {
		t.Errorf("%+v", o)
	}
	b.checkUsage()
}

func TestQueuedBudgets(t *testing.T) {
	testutil.LeakCheck(t)
	size := int64(len(text("x")))
	for what, c := range map[string]struct {
		limit   func(l *Limits)
		message []string
	}{
		"messages": {func(l *Limits) { l.PerUIDQueuedMessages = 2 }, []string{"user1 has 2 of 2 queued messages", settingQueued}},
		"bytes":    {func(l *Limits) { l.PerUIDQueuedBytes = 2*size + 1 }, []string{"user1 has", "bytes of queued messages", settingQueuedBytes}},
		"node":     {func(l *Limits) { l.NodeMessageBytes = 2*(size+rowCost) + 1 }, []string{"all users of this machine have", settingNode}},
	} {
		b := newBox(t)
		c.limit(&b.limits)
		other := Lane{id("A"), lane.To, lane.Protocol, lane.Instance} // the same user's
		for i, l := range []Lane{lane, other} {
			_, err := b.Put(t.Context(), l.message(fmt.Sprint(i), "x"))
			b.must(err)
		}
		for range 2 { // before and after a restart
			_, err := b.Put(t.Context(), lane.message("2", "x"))
			wantCode(t, err, api.CodeOverBudget)
			for _, part := range c.message {
				if !strings.Contains(fmt.Sprint(err), part) {
					t.Errorf("%s: %v", what, err)
				}
			}
			b.reopen()
		}
		if what != "node" {
			_, err := b.Put(t.Context(), Lane{id("b"), id("a"), "Text", "default"}.message("1", "x")) // another user's
			b.must(err)
		}
		// One that is delivered makes room.
		if what != "node" {
			b.must(b.Settle(t.Context(), other, []Outcome{{Seq: 2, ID: "1", State: Delivered}}, nil))
			_, err := b.Put(t.Context(), lane.message("2", "x"))
			b.must(err)
		}
		b.checkUsage()
	}
}

// Data that is kept for Retry gives way to new messages.
func TestKeptDataMakesRoom(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	size := int64(len(text("text of 1")))
	b.limits.PerUIDQueuedBytes = 2 * size
	ms := b.put(lane, "1", "2")
	b.must(b.Settle(t.Context(), lane, []Outcome{{Seq: ms[0].Seq, ID: ms[0].ID, State: Refused}}, nil))
	b.put(lane, "3")
	if o := b.state(lane.From, "1"); o.Data != nil || o.State != Refused {
		t.Errorf("%+v", o)
	}
	_, err := b.Retry(t.Context(), lane.From, "1")
	wantCode(t, err, api.CodeExpired)
	b.checkUsage()
}
