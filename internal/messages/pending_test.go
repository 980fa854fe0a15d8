package messages

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// The receiver's word that it takes mail now may come before its older answer
// that it does not.
func TestHintBeforeTheAnswer(t *testing.T) {
	var s lanes
	s.init(time.Now, oneUser)
	s.queued([]Message{{From: lane.From, To: lane.To, Protocol: lane.Protocol, Instance: lane.Instance}}, time.Second, ignore)
	l := s.pick()
	s.begin(l)
	s.available(lane)
	s.wait(l, time.Hour, api.Errorf(api.CodePending, "not served"))
	if l.state != laneReady {
		t.Error("the lane waits although its mail is taken")
	}
	s.ran(l)
	l = s.pick()
	s.begin(l)
	s.wait(l, time.Hour, api.Errorf(api.CodePending, "not served"))
	if l.state != laneWaiting {
		t.Error("one hint has the lane tried more than once")
	}
}

// Who could not be told that its mail is taken now is told when it connects.
func TestAnnouncementThatFailed(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	var takes, reachable atomic.Bool
	announced := make(chan error, 10)
	c := NewCourier(CourierOptions{
		Store: b.Store,
		Takes: func(identity.ID, identity.ID, string, string) bool { return takes.Load() },
		Announce: func(context.Context, identity.ID, identity.ID, string, string) error {
			var err error
			if !reachable.Load() {
				err = errors.New("not reachable")
			}
			announced <- err
			return err
		},
		Tell: func(Notice) {}, Now: b.clock.Now,
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); c.announce(ctx) }()
	defer func() { cancel(); <-ended }()

	m := &router.Mail{From: id("a"), To: id("b"), Protocol: "Notes", Instance: api.DefaultInstance}
	ask := func() {
		t.Helper()
		if contact, err := c.Wanted(ctx, m); err != nil || !contact {
			t.Errorf("%v, %v", contact, err)
		}
	}
	ask()
	takes.Store(true)
	c.Recheck(ctx, id("b"))
	if <-announced == nil {
		t.Fatal("announced")
	}
	reachable.Store(true)
	c.Remind(id("b"), id("a"))
	if err := <-announced; err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		list, err := b.Wanted(ctx, id("b"))
		b.must(err)
		if len(list) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not forgotten: %+v", list)
		}
	}
	// It was served before the want was noted.
	ask()
	if err := <-announced; err != nil {
		t.Fatal(err)
	}
}

// Who asks in vain while it is told that its mail is taken is told again: nobody serves
// it for a moment, and nothing else would have it hear of that.
func TestAskedInVainWhileItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ask := func() {
			if _, err := r.Wanted(t.Context(), mailOf(orders, "1")); err != nil {
				t.Error(err)
			}
		}
		ask()
		announced := 0
		r.o.Announce = func(context.Context, identity.ID, identity.ID, string, string) error {
			if announced++; announced == 1 {
				r.set(func() { r.takes = false })
				ask()
				r.set(func() { r.takes = true })
			}
			return nil
		}
		r.set(func() { r.takes = true })
		r.Recheck(t.Context(), orders.To)
		synctest.Wait()
		if announced != 2 {
			t.Errorf("told %d times, want 2", announced)
		}
	})
}

// What is to be told is told once, however often it is asked for meanwhile.
func TestHintsAreListedOnce(t *testing.T) {
	l := newHintList()
	one, two := hint{owner: id("b"), wantKey: wantKey{protocol: "1"}}, hint{owner: id("b"), wantKey: wantKey{protocol: "2"}}
	for range 2 * hintQueue {
		l.add(one)
	}
	l.add(two)
	if len(l.next) != 2 {
		t.Errorf("%d are listed", len(l.next))
	}
	l.began(<-l.next)
	l.add(one)
	if len(l.next) != 2 {
		t.Errorf("%d are listed, of which one is needed again", len(l.next))
	}
}

// Who could not be told in time, and stays connected, is told later.
func TestAnnouncementIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		if _, err := r.Wanted(t.Context(), mailOf(orders, "1")); err != nil {
			t.Fatal(err)
		}
		var announced []time.Time
		r.o.Announce = func(context.Context, identity.ID, identity.ID, string, string) error {
			if announced = append(announced, time.Now()); len(announced) == 1 {
				return api.Errorf(api.CodeUnavailable, "no answer")
			}
			return nil
		}
		r.set(func() { r.takes, r.near = true, true })
		r.Recheck(t.Context(), orders.To)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(announced) != 2 || announced[1].Sub(announced[0]) > 10*time.Minute {
			t.Errorf("announced at %v", announced)
		}
	})
}

// A want that could not be noted is no want: its sender is not told to wait, and is
// noted the next time.
func TestWantThatCannotBeNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if contact, err := r.Wanted(gone, mailOf(orders, "1")); err == nil || !contact {
			t.Errorf("%v, %v", contact, err)
		}
		if told := r.told(api.EventProtocolWanted); len(told) != 0 {
			t.Errorf("told %v", told)
		}
		if _, err := r.Wanted(t.Context(), mailOf(orders, "1")); err != nil {
			t.Error(err)
		}
		if told := r.told(api.EventProtocolWanted); len(told) != 1 {
			t.Errorf("told %d times", len(told))
		}
	})
}

// The receiver's word may have been the last thing before a restart.
func TestPendingIsTriedAfterARestart(t *testing.T) {
	var s lanes
	s.init(time.Now, oneUser)
	s.load([]Waiting{{Lane: lane, Code: api.CodePending, NextTry: time.Now().Add(time.Hour), Tries: 1}}, time.Hour)
	if l := s.waiting[0]; l.next.After(time.Now()) {
		t.Errorf("it waits until %v", l.next)
	}
}

// Both machines were off: the other one is up a little later, and our pauses of the
// time before say nothing of that.
func TestWaitingIsTriedSoonAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := memory(t)
		r := newRigAt(t, dir)
		r.is(refusedAll(api.CodePeerUnreachable))
		r.send(lane, "m1")
		time.Sleep(2 * time.Hour)
		recorded()
		if m := r.state("m1"); m.Tries < 10 {
			t.Fatalf("tried %d times", m.Tries)
		}
		r.stop()

		const away = 30 * time.Second
		again := newRigStopped(t, dir)
		up := time.Now().Add(away)
		again.is(func(m *router.Mail) ([]error, error) {
			if time.Now().Before(up) {
				return nil, api.Errorf(api.CodePeerUnreachable, "not now")
			}
			return taken(m)
		})
		again.run()
		time.Sleep(3 * away)
		again.wantStates("m1 delivered")
		if n := len(again.since()); n > 4 {
			t.Errorf("it was tried %d times in %v", n, 3*away)
		}
	})
}
