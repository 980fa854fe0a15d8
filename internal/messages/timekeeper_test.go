package messages

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// A clock that is wrong for a moment ends nothing and has nothing forgotten, at the
// start as little as later.
func TestAClockThatJumps(t *testing.T) {
	for _, restart := range []bool{false, true} {
		b := newBox(t)
		b.limits.KeepRead = 30 * day
		b.put(lane, "queued")
		again := lane.message("1", "x")
		again.Created = b.clock.Now()
		got := b.take(again)
		b.must(b.Remove(t.Context(), lane.To, got[0].Seq))
		kept := b.take(lane.message("kept", "x"))
		b.must(b.MarkRead(t.Context(), lane.To, kept[0].Seq))
		for _, by := range []time.Duration{400 * day, -800 * day} {
			b.clock.jump(by)
			if restart {
				b.reopen()
			}
			b.clock.advance(doubtFor - time.Minute)
			b.put(lane, by.String()) // what is committed meanwhile does not make it right
			if expired, err := b.Expire(t.Context()); err != nil || len(expired) != 0 {
				t.Errorf("expired: %v, %v", expired, err)
			}
			b.must(b.Prune(t.Context()))
			if b.Jump() == 0 {
				t.Error("the jump is not told")
			}
		}
		b.clock.jump(400 * day)
		if restart {
			b.reopen()
		}
		if by := b.Jump(); by != 0 {
			t.Errorf("right again, and told to be %v off", by)
		}
		b.must(b.Prune(t.Context()))
		if b.take(again)[0].Fresh {
			t.Error("taken twice")
		}
		if len(b.inbox(lane.To)) != 1 {
			t.Error("a message read lately is gone")
		}
		if o := b.state(lane.From, "queued"); o.State != Queued {
			t.Errorf("what was sent lately is %v", o.State)
		}
	}
}

// A machine that was off for long goes on as before after an hour.
func TestAMachineThatWasOff(t *testing.T) {
	b := newBox(t)
	b.put(lane, "queued")
	got := b.take(lane.message("1", "x"))
	b.must(b.Remove(t.Context(), lane.To, got[0].Seq))
	b.must(b.Close())
	b.clock.advance(100 * day)
	b.open()
	if expired, err := b.Expire(t.Context()); err != nil || len(expired) != 0 {
		t.Errorf("expired at once: %v, %v", expired, err)
	}
	b.clock.advance(doubtFor)
	if expired, err := b.Expire(t.Context()); err != nil || len(expired) != 1 {
		t.Errorf("expired after an hour: %v, %v", expired, err)
	}
	b.must(b.Prune(t.Context()))
	if !b.take(lane.message("1", "x"))[0].Fresh {
		t.Error("still known after 100 days")
	}
	b.reopen() // the time is believed now, and on the disk
	if by := b.Jump(); by != 0 {
		t.Errorf("%v off", by)
	}
}

// A lane that was to wait until a time of a wrong clock waits no longer than any other.
func TestALaneThatWaitsForAWrongTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := memory(t)
		r := newRigAt(t, dir)
		r.is(refusedAll(api.CodePeerUnreachable))
		r.send(lane, "1")
		recorded()
		if err := r.s.Settle(t.Context(), lane, nil, &Wait{Code: api.CodePeerUnreachable, NextTry: time.Now().Add(400 * day)}); err != nil {
			t.Fatal(err)
		}
		r.stop()
		next := newRigAt(t, dir)
		time.Sleep(15 * time.Minute)
		next.wantStates("1 delivered")
	})
}

// A message that has expired by a clock that jumped is not sent, and none passes it:
// where the clock is set right it goes first, else it has expired after an hour, and
// those behind it go.
func TestNonePassesWhatMayHaveExpired(t *testing.T) {
	for name, right := range map[string]bool{"set right": true, "right all along": false} {
		for _, whole := range []bool{true, false} { // is what waits known without the disk
			synctest.Test(t, func(t *testing.T) {
				var ahead atomic.Int64
				r := newRigStopped(t, memory(t))
				now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
				r.s.o.Now, r.o.Now = now, now
				r.run()
				if !whole {
					r.is(refusedAll(api.CodePeerUnreachable))
				}
				block := make(chan struct{})
				if whole { // the carrier is busy, and what comes is kept for it
					r.is(func(m *router.Mail) ([]error, error) { <-block; return taken(m) })
					r.send(lane, "0")
					synctest.Wait()
				}
				r.send(lane, "1", "2")
				if _, err := r.Send(t.Context(), func() Message {
					m := lane.message("3", "that lives longer")
					m.Expires = now().Add(20 * day)
					return m
				}()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				ahead.Store(int64(10 * day))
				close(block)
				r.since()
				r.is(taken)
				time.Sleep(30 * time.Minute)
				if a := r.since(); len(a) != 0 {
					t.Errorf("%s: sent while it is doubted: %v", name, a)
				}
				if right {
					ahead.Store(0)
				}
				r.send(lane, "4")
				time.Sleep(time.Hour)
				var got []string
				for _, a := range r.since() {
					got = append(got, a.id...)
				}
				want := []string{"3", "4"}
				if right {
					want = []string{"1", "2", "3", "4"}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s, whole %v: sent %v, want %v", name, whole, got, want)
				}
				r.stop()
			})
		}
	}
}

// While the clock is doubted no message is refused for its time: it waits, and what is
// behind it.
func TestTakeWhileTheClockIsDoubted(t *testing.T) {
	b := newBox(t)
	b.take(lane.message("before", "x"))
	list := []Message{lane.message("1", "x"), lane.message("2", "x")}
	for i := range list {
		list[i].Created = b.clock.Now()
	}
	for _, by := range []time.Duration{-2 * day, 100 * day} {
		b.clock.jump(by)
		list[1].Created = b.clock.Now() // which is believed, but behind the first
		for _, got := range b.take(list...) {
			wantCode(t, got.Err, api.CodeUnavailable)
		}
		b.clock.jump(-by)
	}
	list[1].Created = b.clock.Now()
	for _, got := range b.take(list...) {
		if got.Err != nil || !got.Fresh {
			t.Errorf("%+v", got)
		}
	}
}
