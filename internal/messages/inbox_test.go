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

func TestTakeOnce(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	first := b.take(lane.message("1", "one"), lane.message("2", "two"), lane.message("1", "one"), lane.message("2", "other"))
	if first[0].Err != nil || !first[0].Fresh || !first[1].Fresh || first[2].Err != nil || first[2].Fresh || first[2].Seq != first[0].Seq {
		t.Errorf("%+v", first)
	}
	wantCode(t, first[3].Err, api.CodeConflict)
	b.reopen()
	again := b.take(lane.message("1", "one"), lane.message("2", "other"), lane.message("3", "three"))
	if again[0] != (Taken{Seq: first[0].Seq}) || !again[2].Fresh {
		t.Errorf("%+v", again)
	}
	wantCode(t, again[1].Err, api.CodeConflict)
	in := b.inbox(lane.To)
	if len(in) != 3 || in[0].ID != "1" || string(in[0].Data) != `{"text":"one"}` || in[0].From != lane.From || in[0].To != lane.To ||
		in[0].Protocol != "Text" || in[0].Read || !in[0].Received.Equal(b.clock.Now()) {
		t.Errorf("%+v", in)
	}
	if b.Unread(lane.To) != 3 || b.Unread(lane.From) != 0 {
		t.Errorf("%d unread", b.Unread(lane.To))
	}
	// Two senders may use one id.
	other := Lane{id("c"), lane.To, lane.Protocol, lane.Instance}
	if got := b.take(other.message("1", "mine")); !got[0].Fresh {
		t.Errorf("%+v", got)
	}
	mixed := b.take(lane.message("4", "x"), other.message("5", "x"))
	if mixed[0].Err != nil {
		t.Errorf("%+v", mixed)
	}
	wantCode(t, mixed[1].Err, api.CodeBadRequest)
	b.checkUsage()
}

// What is gone is known for 60 days, and nothing older than 30 is taken: no
// retry is a second message, whenever it comes.
func TestRememberedForSixtyDays(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	m := lane.message("1", "one")
	m.Created = b.clock.Now().Add(-29 * day) // it was long on its way
	seq := b.take(m)[0].Seq
	b.must(b.Remove(t.Context(), lane.To, seq))
	for day_ := range 61 {
		if got := b.take(m)[0]; got != (Taken{Seq: seq}) {
			t.Fatalf("after %d days: %+v", day_, got)
		}
		if day_ > 1 {
			old := lane.message("never seen", "x")
			old.Created = m.Created
			wantCode(t, b.take(old)[0].Err, api.CodeExpired)
		}
		b.clock.advance(day)
		b.must(b.Prune(t.Context()))
	}
	wantCode(t, b.take(m)[0].Err, api.CodeExpired) // forgotten, and too old
	if len(b.inbox(lane.To)) != 0 || b.use.onDisk() != 0 {
		t.Errorf("%d bytes are left", b.use.onDisk())
	}
	// The latest that can be created is not younger than our memory of it.
	m.ID, m.Created = "2", b.clock.Now().Add(maxAhead)
	if got := b.take(m)[0]; !got.Fresh {
		t.Fatal(got.Err)
	}
	b.must(b.Acknowledge(t.Context(), lane.To, lane.From, "2"))
	for range 62 {
		if got := b.take(m)[0]; got.Fresh {
			t.Fatal("taken twice")
		}
		b.clock.advance(day)
		b.must(b.Prune(t.Context()))
	}
	m.ID, m.Created = "3", b.clock.Now().Add(maxAhead+time.Second)
	wantCode(t, b.take(m)[0].Err, api.CodeClockSkew)
	b.checkUsage()
}

func TestUnreadBudgets(t *testing.T) {
	testutil.LeakCheck(t)
	size := int64(len(text("x")))
	for what, limit := range map[string]func(l *Limits){
		"unread messages (2)":      func(l *Limits) { l.PerPeerUnreadMessages = 2 },
		"bytes of unread messages": func(l *Limits) { l.PerPeerUnreadBytes = 3*size - 1 },
		"bytes of all messages":    func(l *Limits) { l.NodeMessageBytes = 3*(size+rowCost) - 1 },
	} {
		b := newBox(t)
		limit(&b.limits)
		got := b.take(lane.message("1", "x"), lane.message("2", "x"), lane.message("3", "x"), lane.message("1", "x"), lane.message("4", ""))
		if got[0].Err != nil || got[1].Err != nil || got[3].Err != nil || got[3].Fresh {
			t.Errorf("%s: %+v", what, got)
		}
		for _, i := range []int{2, 4} { // the small one must not overtake
			wantCode(t, got[i].Err, api.CodeOverBudget)
			if s := fmt.Sprint(got[i].Err); !strings.Contains(s, what) || strings.Contains(s, "user") {
				t.Errorf("%s: %s", what, s)
			}
		}
		if !strings.HasPrefix(what, "bytes of all") {
			// Another sender is not hindered, and reading makes room.
			if got := b.take(Lane{id("c"), lane.To, "Text", "default"}.message("1", "x")); !got[0].Fresh {
				t.Errorf("%+v", got)
			}
			b.must(b.MarkRead(t.Context(), lane.To, got[0].Seq, got[0].Seq, 999))
		} else {
			b.must(b.Remove(t.Context(), lane.To, got[0].Seq))
			b.clock.advance(61 * day)
			b.must(b.Prune(t.Context()))
		}
		if got := b.take(lane.message("3", "x")); !got[0].Fresh {
			t.Errorf("%s: %+v", what, got)
		}
		b.checkUsage()
	}
}

func TestReadRemoveAcknowledge(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	got := b.take(lane.message("1", "x"), lane.message("2", "x"), lane.message("3", "x"))
	b.must(b.MarkRead(t.Context(), lane.To, got[0].Seq))
	b.must(b.MarkRead(t.Context(), lane.From, got[1].Seq)) // not hers
	b.must(b.Remove(t.Context(), lane.From, got[1].Seq))
	in := b.inbox(lane.To)
	if len(in) != 3 || !in[0].Read || in[1].Read || b.Unread(lane.To) != 2 {
		t.Errorf("%+v, %d unread", in, b.Unread(lane.To))
	}
	list, err := b.ListIn(t.Context(), lane.To, Page{Limit: 1}, true)
	if err != nil || len(list) != 1 || list[0].ID != "2" {
		t.Errorf("%+v, %v", list, err)
	}
	b.must(b.Remove(t.Context(), lane.To, got[0].Seq, got[0].Seq))
	for range 2 {
		b.must(b.Acknowledge(t.Context(), lane.To, lane.From, "2"))
	}
	b.must(b.Acknowledge(t.Context(), lane.To, lane.From, "nix"))
	if in := b.inbox(lane.To); len(in) != 1 || in[0].ID != "3" || b.Unread(lane.To) != 1 {
		t.Errorf("%+v, %d unread", in, b.Unread(lane.To))
	}
	b.must(b.MarkRead(t.Context(), lane.To, got[1].Seq)) // gone stays gone
	if list, err := b.ListIn(t.Context(), lane.To, Page{After: got[2].Seq}, false); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	b.must(b.Remove(t.Context(), lane.To, got[2].Seq))
	if list, err := b.ListIn(t.Context(), lane.To, Page{}, true); err != nil || len(list) != 0 || b.Unread(lane.To) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	b.checkUsage()
}

func TestIncomingByID(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	// Real ids, as they are parsed here.
	one, two := realID(t), realID(t)
	for _, from := range []Lane{{one, lane.To, "Text", "default"}, {two, lane.To, "Text", "default"}} {
		b.take(from.message("1", "x"))
	}
	b.take(Lane{one, lane.To, "Text", "default"}.message("a/b", "x"))
	_, err := b.Incoming(t.Context(), lane.To, "1")
	wantCode(t, err, api.CodeConflict)
	if s := fmt.Sprint(err); !strings.Contains(s, one.String()) || !strings.Contains(s, two.String()) {
		t.Error(s)
	}
	if m, err := b.Incoming(t.Context(), lane.To, two.String()+"/1"); err != nil || m.From != two {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := b.Incoming(t.Context(), lane.To, "a/b"); err != nil || m.From != one {
		t.Errorf("%+v, %v", m, err)
	}
	for ref, code := range map[string]api.Code{"nix": api.CodeNotFound, "x/1": api.CodeBadRequest, one.String() + "/nix": api.CodeNotFound, "": api.CodeNotFound} {
		_, err := b.Incoming(t.Context(), lane.To, ref)
		wantCode(t, err, code)
	}
	_, err = b.Incoming(t.Context(), lane.From, "1") // another's inbox
	wantCode(t, err, api.CodeNotFound)
	b.must(b.Acknowledge(t.Context(), lane.To, one, "1"))
	if m, err := b.Incoming(t.Context(), lane.To, "1"); err != nil || m.From != two {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestWaitingForPrograms(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	mail := Lane{lane.From, lane.To, "Mail", "work"}
	b.take(lane.message("1", "x"))
	got := b.take(mail.message("2", "x"), mail.message("3", "x"), mail.message("4", "x"))
	b.take(Lane{lane.From, lane.To, "Mail", "home"}.message("5", "x"))
	list := func(p Page) (names []string) {
		ms, err := b.Waiting(t.Context(), lane.To, "Mail", "work", p)
		b.must(err)
		for _, m := range ms {
			names = append(names, m.ID)
		}
		return names
	}
	if l := list(Page{}); !slices.Equal(l, []string{"2", "3", "4"}) {
		t.Error(l)
	}
	if l := list(Page{After: got[0].Seq, MaxBytes: 1}); !slices.Equal(l, []string{"3"}) {
		t.Error(l)
	}
	b.must(b.Acknowledge(t.Context(), lane.To, lane.From, "3"))
	if l := list(Page{}); !slices.Equal(l, []string{"2", "4"}) {
		t.Error(l)
	}
}

func TestRetention(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	b.limits.KeepRead = 10 * day
	const n = atOnce + 3
	var seqs []int64
	for i := range n {
		seqs = append(seqs, b.take(lane.message(fmt.Sprint(i), "x"))[0].Seq)
	}
	b.take(lane.message("unread", "x"))
	b.clock.advance(20 * day)
	b.must(b.MarkRead(t.Context(), lane.To, seqs...)) // kept from now on
	for _, c := range []struct {
		after time.Duration
		left  int
	}{{9 * day, n + 1}, {2 * day, 1}} {
		b.clock.advance(c.after)
		b.must(b.Prune(t.Context()))
		if in, err := b.ListIn(t.Context(), lane.To, Page{Limit: 2 * n}, false); err != nil || len(in) != c.left {
			t.Errorf("%d messages, %v", len(in), err)
		}
	}
	rows := b.use.get(allStored, id(""), id("")).messages
	if b.clock.advance(30 * day); rows != n+1 {
		t.Errorf("%d rows", rows)
	}
	b.must(b.Prune(t.Context()))
	if rows := b.use.get(allStored, id(""), id("")).messages; rows != 1 || len(b.inbox(lane.To)) != 1 {
		t.Errorf("%d rows", rows)
	}
	b.checkUsage()
}

// Final messages of the outbox are known as long as the receiver knows them.
func TestFinalMessagesAreKept(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	ms := b.put(lane, "1", "2", "3")
	b.must(b.Settle(t.Context(), lane, []Outcome{{Seq: ms[0].Seq, ID: ms[0].ID, State: Delivered}, {Seq: ms[1].Seq, ID: ms[1].ID, State: Refused}}, nil))
	b.clock.advance(59 * day)
	b.must(b.Prune(t.Context()))
	if o, err := b.Put(t.Context(), lane.message("1", "text of 1")); err != nil || o.State != Delivered {
		t.Errorf("%+v, %v", o, err)
	}
	b.clock.advance(2 * day)
	b.must(b.Prune(t.Context()))
	list, err := b.ListOut(t.Context(), lane.From, Page{}, true)
	if err != nil || len(list) != 1 || list[0].ID != "3" {
		t.Errorf("%+v, %v", list, err)
	}
	b.checkUsage()
}

func TestForget(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	back := Lane{lane.To, lane.From, "Text", "default"}
	b.put(lane, "1", "2")
	b.put(back, "1")
	b.take(lane.message("1", "x"))
	got := b.take(back.message("1", "x"), back.message("2", "x"), back.message("3", "x"))
	b.must(b.MarkRead(t.Context(), back.To, got[0].Seq))
	b.must(b.Remove(t.Context(), back.To, got[1].Seq))
	_, err := b.Want(t.Context(), back.To, back.From, "P", "default")
	b.must(err)
	b.must(b.Settle(t.Context(), lane, nil, &Wait{Code: api.CodeTimeout, NextTry: b.clock.Now()}))
	b.must(b.Forget(t.Context(), lane.From))
	b.checkUsage()
	wanted, err := b.Wanted(t.Context(), lane.From)
	if err != nil || len(wanted) != 0 || len(b.inbox(lane.From)) != 0 || len(b.head(lane)) != 0 {
		t.Errorf("%v %v", wanted, err)
	}
	if len(b.inbox(lane.To)) != 1 || len(b.head(back)) != 1 {
		t.Error("another identity's messages are gone")
	}
	if u := b.use.snapshot(); len(u) != 5 { // b's queued and unread, its rows in both boxes, and all
		t.Errorf("%+v", u)
	}
}

// Either case of a UUID is the same message, on both sides, and lower case is kept.
func TestOneCaseOfIDs(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	const upper, lower = "ABCDEF01-2345-4789-8ABC-DEF012345678", "abcdef01-2345-4789-8abc-def012345678"
	got := b.take(lane.message(upper, "one"), lane.message(lower, "one"), lane.message("ABCDEF01-2345-4789-8ABC-DEF01234567a", "two"))
	if !got[0].Fresh || got[1] != (Taken{Seq: got[0].Seq}) || !got[2].Fresh {
		t.Errorf("%+v", got)
	}
	if in := b.inbox(lane.To); len(in) != 2 || in[0].ID != lower {
		t.Errorf("%+v", in)
	}
	for _, name := range []string{upper, lower} {
		out, err := b.Put(t.Context(), lane.message(name, "one"))
		if err != nil || out.ID != lower || out.Seq != 1 {
			t.Errorf("%+v, %v", out, err)
		}
	}
	b.checkUsage()
}
