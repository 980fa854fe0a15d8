package messages

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// What waited arrives in the order of sending, in batches, and what comes
// meanwhile behind it.
func TestOrderIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.is(refusedAll(api.CodePeerUnreachable))
		const n = 600
		var want []string
		for i := range n {
			want = append(want, number(i))
		}
		r.send(lane, want[:n-1]...)
		r.since()
		first := true
		r.is(func(m *router.Mail) ([]error, error) {
			if first {
				first = false
				r.send(lane, want[n-1])
			}
			return taken(m)
		})
		r.Reachable(lane.To)
		var got []string
		all := r.since()
		for _, a := range all {
			got = append(got, a.id...)
			if len(a.id) > maxLetters {
				t.Errorf("a batch of %d", len(a.id))
			}
		}
		if !slices.Equal(got, want) || len(all) != 3 {
			t.Errorf("%d messages in %d batches: %v", len(got), len(all), got)
		}
		if told := r.told(api.EventMessageDelivered); !slices.Equal(told, want) {
			t.Errorf("told of %v", told)
		}
	})
}

func TestRefusedMessageBlocksNobody(t *testing.T) {
	for _, code := range []api.Code{api.CodeRefused, api.CodeConflict, api.CodeExpired, api.CodeBadRequest, api.CodeTooLarge, api.CodeNotPermitted, api.CodeClockSkew} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.is(refusedAll(api.CodePeerUnreachable))
			r.send(lane, "1", "2", "3")
			r.since()
			r.is(func(m *router.Mail) ([]error, error) { return []error{nil, api.Errorf(code, "not this"), nil}, nil })
			r.Reachable(lane.To)
			r.wantStates("1 delivered", "2 refused", "3 delivered")
			if m := r.state("2"); m.Code != code || m.Reason != "not this" {
				t.Errorf("%+v", m)
			}
			if told := r.told(api.EventMessageRefused); !slices.Equal(told, []string{"2"}) {
				t.Errorf("told of %q", told)
			}
			if a := r.since(); len(a) != 1 {
				t.Errorf("%d attempts", len(a))
			}
		})
	}
}

// What a receiver says may be anything, and is told as its words.
func TestReceiversWordsAreMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.is(func(m *router.Mail) ([]error, error) {
			return nil, &api.Error{Code: api.CodeUnavailable, Message: "fastn is out of date", Peer: m.To.String()}
		})
		r.send(lane, "1")
		if m := r.state("1"); m.State != Queued || m.Reason != "the receiver answered: fastn is out of date" {
			t.Errorf("%+v", m)
		}
	})
}

// What waits for something keeps those behind it waiting; a full receiver is such
// a thing.
func TestWaitKeepsOrder(t *testing.T) {
	for _, code := range []api.Code{api.CodeOverBudget, api.CodeOffline, api.CodePending, api.CodePeerUnreachable, api.CodeTimeout,
		api.CodeStorage, api.CodeInternal, api.CodeOutcomeUnknown, "of a newer version"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.is(refusedAll(code))
			r.send(lane, "1", "2", "3")
			r.since()
			r.is(func(m *router.Mail) ([]error, error) {
				return []error{nil, api.Errorf(code, "wait"), api.Errorf(code, "so do others")}, nil
			})
			if _, err := r.Retry(t.Context(), lane.From, "1"); err != nil {
				t.Fatal(err)
			}
			r.wantStates("1 delivered", "2 queued", "3 queued")
			if m := r.state("3"); m.Code != code || m.Reason != "wait" || m.NextTry.IsZero() || m.Tries != 1 {
				t.Errorf("%+v", m)
			}
			r.since()
			r.is(taken)
			time.Sleep(2 * time.Hour)
			if a := r.since(); len(a) != 1 || !slices.Equal(a[0].id, []string{"2", "3"}) {
				t.Errorf("%v", a)
			}
			r.wantStates("1 delivered", "2 delivered", "3 delivered")
		})
	}
}

func TestBackOff(t *testing.T) {
	for _, c := range []struct {
		name  string
		code  api.Code
		near  bool
		most  time.Duration
		first time.Duration
	}{
		{"seen lately", api.CodePeerUnreachable, true, 10 * time.Second, time.Second},
		{"long ago", api.CodePeerUnreachable, false, 10 * time.Minute, time.Second},
		{"full", api.CodeOverBudget, false, 10 * time.Minute, time.Second},
		{"pending", api.CodePending, true, time.Hour, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.set(func() { r.near = c.near })
				r.is(refusedAll(c.code))
				r.send(lane, "1")
				time.Sleep(day)
				a := r.since()
				want := c.first
				for i := 1; i < len(a); i++ {
					if gap := a[i].at.Sub(a[i-1].at); gap < want*4/5 || gap > want*6/5+time.Millisecond {
						t.Fatalf("the pause before try %d was %v, want %v give or take a fifth", i+1, gap, want)
					}
					want = min(2*want, c.most)
				}
				if want != c.most || len(a) < 20 {
					t.Errorf("%d tries, the last pause was to be %v", len(a), want)
				}
				if m := r.state("1"); m.NextTry.Before(time.Now()) || m.NextTry.After(time.Now().Add(c.most*6/5)) || m.Tries != len(a) {
					t.Errorf("after %d tries: %+v", len(a), m)
				}
			})
		})
	}
}

// What brings a waiting lane to be tried at once, and what does not.
func TestKicks(t *testing.T) {
	none := func(*rig) {}
	for _, c := range []struct {
		name string
		code api.Code
		do   func(r *rig)
		want bool
	}{
		{"nothing", api.CodePeerUnreachable, none, false},
		{"a node of the receiver connects", api.CodePeerUnreachable, func(r *rig) { r.Reachable(lane.To) }, true},
		{"another's connects", api.CodePeerUnreachable, func(r *rig) { r.Reachable(id("c")) }, false},
		{"a node connects of one who has to act", api.CodePending, func(r *rig) { r.Reachable(lane.To) }, false},
		{"the receiver says that it takes it", api.CodePending, func(r *rig) { r.Available(lane.To, lane.From, lane.Protocol, "") }, true},
		{"it says so of another protocol", api.CodePending, func(r *rig) { r.Available(lane.To, lane.From, "Other", "") }, false},
		{"it says so where nobody waits for that", api.CodePeerUnreachable, func(r *rig) { r.Available(lane.To, lane.From, lane.Protocol, "") }, false},
		{"its sender retries", api.CodePending, func(r *rig) {
			if _, err := r.Retry(r.t.Context(), lane.From, "1"); err != nil {
				r.t.Fatal(err)
			}
		}, true},
		{"another message", api.CodePeerUnreachable, func(r *rig) { r.send(lane, "2") }, true},
		{"another message to one who has to act", api.CodePending, func(r *rig) { r.send(lane, "2") }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.is(refusedAll(c.code))
				r.send(lane, "1")
				for range 10 { // until the next try is far
					time.Sleep(5 * time.Minute)
				}
				next := r.state("1").NextTry
				if time.Until(next) < 30*time.Second {
					time.Sleep(time.Until(next))
				}
				time.Sleep(15 * time.Second) // the last try was long enough ago for another message to count
				r.since()
				c.do(r)
				synctest.Wait()
				if got := len(r.since()) > 0; got != c.want {
					t.Errorf("tried at once: %v", got)
				}
			})
		})
	}
}

// A user whose receivers do not answer holds up his own mail, not that of others.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var mu sync.Mutex
		held, most := 0, 0
		release := make(chan struct{})
		r.is(func(m *router.Mail) ([]error, error) {
			if m.From[0] != lane.From[0] {
				return taken(m)
			}
			mu.Lock()
			held++
			most = max(most, held)
			mu.Unlock()
			<-release
			mu.Lock()
			held--
			mu.Unlock()
			return taken(m)
		})
		for i := range 3 * carriersEach {
			l := lane
			l.From, l.To = id("a"+number(i%20)), id("p"+number(i)) // one user's
			r.send(l, number(i))
		}
		synctest.Wait()
		other := Lane{From: id("c"), To: id("b"), Protocol: "Text", Instance: "default"}
		r.send(other, "1")
		recorded()
		if out, err := r.s.Outgoing(t.Context(), other.From, "1"); err != nil || out.State != Delivered {
			t.Errorf("another's message: %v, %v", out.State, err)
		}
		close(release)
		for range 3 { // a turn of each carrier ends with a record
			recorded()
		}
		if most != carriersEach || len(r.told(api.EventMessageDelivered)) != 3*carriersEach+1 {
			t.Errorf("%d at once; %d delivered", most, len(r.told(api.EventMessageDelivered)))
		}
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.is(refusedAll(api.CodePeerUnreachable))
		m := lane.message("1", "short")
		m.Expires = time.Now().Add(time.Hour + 20*time.Second) // between two looks
		if _, err := r.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		r.send(lane, "2")
		final := make(chan Outgoing, 1)
		go func() {
			out, _ := r.WaitFinal(t.Context(), lane.From, "1")
			final <- out
		}()
		// Who waits for it is told at once, not when it is looked for next.
		if out := <-final; out.State != Expired || out.Code != api.CodePeerUnreachable || time.Now().After(m.Expires.Add(time.Second)) {
			t.Errorf("%v after its end: %+v", time.Since(m.Expires), out)
		}
		if told := r.told(api.EventMessageExpired); !slices.Equal(told, []string{"1"}) {
			t.Errorf("told of %q", told)
		}
		r.since()
		r.is(taken)
		r.Reachable(lane.To)
		if a := r.since(); len(a) != 1 || !slices.Equal(a[0].id, []string{"2"}) {
			t.Errorf("%v", a)
		}
		r.wantStates("1 expired", "2 delivered")
	})
}

// Those whose life is over end then, also if nobody asks; another one that was queued
// later may end before.
func TestExpiryIsPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.is(refusedAll(api.CodePeerUnreachable))
		for _, m := range []struct {
			id   string
			life time.Duration
		}{{"1", 50 * time.Second}, {"2", 2 * time.Second}, {"3", 20 * time.Second}, {"4", time.Hour + 7*time.Second}} {
			one := lane.message(m.id, "short")
			one.Expires = time.Now().Add(m.life)
			if _, err := r.Send(t.Context(), one); err != nil {
				t.Fatal(err)
			}
		}
		start, order := time.Now(), []string{"2", "3", "1", "4"}
		for _, at := range []struct{ second, ended int }{{1, 0}, {4, 1}, {18, 1}, {22, 2}, {48, 2}, {52, 3}, {3605, 3}, {3609, 4}} {
			time.Sleep(time.Until(start.Add(time.Duration(at.second) * time.Second)))
			if told := r.told(api.EventMessageExpired); !slices.Equal(told, order[:at.ended]) {
				t.Fatalf("after %d s %q have expired, want %q", at.second, told, order[:at.ended])
			}
		}
	})
}

// What cannot be ended, as the disk refuses, is not tried over and over: each try is
// logged.
func TestExpiryThatFailsIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.is(refusedAll(api.CodePeerUnreachable))
		end := r.refuseRecords()
		m := lane.message("1", "short")
		m.Expires = time.Now().Add(2 * time.Second)
		if _, err := r.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		end()
		time.Sleep(10 * time.Second)
		if told := r.told(api.EventMessageExpired); len(told) > 0 {
			t.Errorf("%q were tried again at once", told)
		}
		time.Sleep(time.Minute)
		if told := r.told(api.EventMessageExpired); !slices.Equal(told, []string{"1"}) {
			t.Errorf("told of %q", told)
		}
	})
}

// A courier that ends in the middle of a batch has lost nothing for the next.
func TestStopAndGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := memory(t)
		r := newRigAt(t, dir)
		inflight := make(chan struct{})
		r.set(func() {
			r.answer = func(*router.Mail) ([]error, error) {
				<-inflight
				return nil, api.Errorf(api.CodeOutcomeUnknown, "it ended")
			}
		})
		r.send(lane, "1", "2")
		synctest.Wait()
		go func() {
			time.Sleep(time.Second)
			close(inflight)
		}()
		r.stop()
		next := newRigAt(t, dir)
		next.wantStates("1 delivered", "2 delivered")
		if a := next.since(); len(a) != 1 || !slices.Equal(a[0].id, []string{"1", "2"}) {
			t.Errorf("%v", a)
		}
	})
}

// A message that comes when a lane was just found empty is not forgotten.
func TestQueuedWhileFoundEmpty(t *testing.T) {
	var s lanes
	s.init(time.Now, oneUser)
	one := []Message{{From: lane.From, To: lane.To, Protocol: lane.Protocol, Instance: lane.Instance}}
	s.queued(one, time.Second, ignore)
	l := s.pick()
	s.begin(l)
	s.queued(one, time.Second, ignore)
	if s.done(l) {
		t.Error("the lane is gone with its message")
	}
	if s.begin(l); !s.done(l) {
		t.Error("the lane stays without a message")
	}
}

// Another node waits for the answer to what brings nothing; who brings something,
// or is of this machine, does not.
func TestNothingNewIsAnsweredLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		synctest.Wait() // it has begun
		took := func(m *router.Mail) time.Duration {
			t.Helper()
			began := time.Now()
			if out, err := r.Deliver(t.Context(), m); err != nil || slices.ContainsFunc(out, func(err error) bool { return err != nil }) {
				t.Fatal(out, err)
			}
			return time.Since(began)
		}
		near, far := mailOf(lane, "1", "2"), mailOf(lane, "1", "2")
		far.Node = id("n")
		if d := took(far); d != 0 {
			t.Errorf("new mail is answered after %v", d)
		}
		if d := took(far); d < dwellMin || d > dwellMost {
			t.Errorf("the same again is answered after %v", d)
		}
		if d := took(near); d != 0 {
			t.Errorf("the same from this machine is answered after %v", d)
		}
		far.Letters = append(far.Letters, mailOf(lane, "3").Letters...)
		if d := took(far); d != 0 {
			t.Errorf("with a new one it is answered after %v", d)
		}
	})
}
