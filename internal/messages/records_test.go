package messages

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// What was told to be delivered stays so when the machine ends before that is on
// the disk: it is sent again, and the receiver has it, once.
func TestDeliveredIsToldBeforeItIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, after := memory(t), memory(t)
		r, peer := newRigAt(t, dir), newRig(t)
		synctest.Wait() // they have begun
		toPeer := func(m *router.Mail) ([]error, error) { return peer.Deliver(t.Context(), m) }
		r.is(toPeer)
		r.send(lane, "1", "2")
		for _, id := range []string{"1", "2"} {
			if m, err := r.WaitFinal(t.Context(), lane.From, id); err != nil || m.State != Delivered {
				t.Fatalf("%+v, %v", m, err)
			}
		}
		if m, err := r.s.Outgoing(t.Context(), lane.From, "2"); err != nil || m.State != Queued {
			t.Fatalf("it is on the disk already: %+v, %v", m, err)
		}
		crash(t, dir, after)
		if got := peer.kept(lane.To); !slices.Equal(got, []string{"a1", "a2"}) {
			t.Errorf("the inbox before: %v", got)
		}

		next := newRigAt(t, after)
		next.is(toPeer)
		next.wantStates("1 delivered", "2 delivered")
		if a := next.since(); len(a) == 0 {
			t.Error("nothing was sent again: the crash lost nothing")
		}
		if got := peer.kept(lane.To); !slices.Equal(got, []string{"a1", "a2"}) {
			t.Errorf("the inbox after: %v", got)
		}
	})
}

// crash copies what a machine that ends now has on its disk.
func crash(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{File, File + "-wal"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// refuseRecords has nothing recorded from now on, until the end that it gives.
func (r *rig) refuseRecords() (end func()) {
	r.records.add(settled{lane, []Message{{}}, []Outcome{{State: Queued}}}) // fails what is recorded with it
	return func() {
		r.records.mu.Lock()
		defer r.records.mu.Unlock()
		r.records.list = slices.DeleteFunc(r.records.list, func(t settled) bool { return t.outcomes[0].State == Queued })
	}
}

// What cannot be recorded is told as delivered all the while, does not expire and is
// not sent again; it is recorded once that is possible.
func TestDeliveredCannotBeRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		synctest.Wait() // it has begun
		end := r.refuseRecords()
		r.send(lane, "1")
		r.since()
		recorded()
		m, err := r.s.Outgoing(t.Context(), lane.From, "1")
		if err != nil || m.State != Queued {
			t.Fatalf("it is recorded: %+v, %v", m, err)
		}
		if m = r.Latest(m); m.State != Delivered {
			t.Errorf("it is told as %v", m.State)
		}
		r.send(lane, "2") // what comes next waits, or is delivered, as the disk has it
		time.Sleep(8 * day)
		end()
		time.Sleep(2 * recordAgain)
		r.wantStates("1 delivered", "2 delivered")
		for _, a := range r.since() {
			if slices.Contains(a.id, "1") {
				t.Errorf("sent again: %v", a)
			}
		}
		if told := r.told(api.EventMessageExpired); len(told) > 0 {
			t.Errorf("told as expired: %q", told)
		}
	})
}

// What could not be recorded at the end is in doubt at the next start, and what is
// in doubt at an end stays so.
func TestDoubtIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := memory(t)
		r := newRigAt(t, dir)
		synctest.Wait()
		r.refuseRecords()
		r.send(lane, "1")
		synctest.Wait()
		r.stop()
		// An end before its receiver answered.
		release := make(chan struct{})
		next := newRigCut(t, dir, func(m *router.Mail) ([]error, error) { <-release; return taken(m) })
		if !next.s.WasCut() {
			t.Error("the end that could not record is taken for a proper one")
		}
		var stopped sync.WaitGroup
		stopped.Go(next.stop)
		synctest.Wait()
		close(release)
		stopped.Wait()
		next = newRigAt(t, dir)
		if !next.s.WasCut() {
			t.Error("the doubt ended with the second end")
		}
		next.wantStates("1 delivered")
		next.stop()
		if next = newRigAt(t, dir); next.s.WasCut() {
			t.Error("the doubt does not end")
		}
	})
}

// What is in doubt does not expire since somebody waits for it.
func TestWaitExpiresNothingInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := memory(t)
		r := newRigAt(t, dir)
		synctest.Wait()
		m := lane.message("1", "x")
		m.Expires = time.Now().Add(time.Hour)
		if _, err := r.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if out, err := r.WaitFinal(t.Context(), lane.From, "1"); err != nil || out.State != Delivered {
			t.Fatalf("%+v, %v", out, err)
		}
		dir = cut(t, dir)
		r.stop()
		time.Sleep(2 * time.Hour)
		next := newRigCut(t, dir, slowly)
		if out, err := next.WaitFinal(t.Context(), lane.From, "1"); err != nil || out.State != Delivered {
			t.Errorf("after the cut: %v, %v", out.State, err)
		}
	})
}

// What is known of a message is not that of an earlier one of its id.
func TestKnownIsOfTheFreshOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		synctest.Wait()
		r.send(lane, "1")
		recorded()
		if err := r.Courier.Forget(t.Context(), lane.From); err != nil {
			t.Fatal(err)
		}
		r.is(refusedAll(api.CodePeerUnreachable))
		r.send(lane, "2") // has the lane wait
		synctest.Wait()
		r.send(lane, "1")
		m := r.state("1")
		if m = r.Latest(m); m.State != Queued {
			t.Errorf("a message that waits is told as %v", m.State)
		}
	})
}

// Who cancels a message in the moment in which it is answered comes too late.
func TestDeliveredStaysKnown(t *testing.T) {
	var w waiters
	w.init()
	m := Outgoing{Message: lane.message("1", "x"), State: Delivered}
	w.signal(m)
	news, forget := w.add(m.From, m.ID)
	defer forget()
	m.State = Cancelled
	w.signal(m)
	if got := <-news; got.State != Delivered || !w.delivered(m.From, m.ID) {
		t.Errorf("told as %v", got.State)
	}
}

// What the receiver takes in the moment in which it is taken back is delivered, and
// what it refuses then is taken back.
func TestTakenBackOnItsWay(t *testing.T) {
	for _, c := range []struct {
		answer func(*router.Mail) ([]error, error)
		want   State
	}{{taken, Delivered}, {func(*router.Mail) ([]error, error) {
		return []error{api.Errorf(api.CodeBadRequest, "no")}, nil
	}, Cancelled}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			synctest.Wait()
			release := make(chan struct{})
			r.is(func(m *router.Mail) ([]error, error) { <-release; return c.answer(m) })
			r.send(lane, "1")
			synctest.Wait()
			if _, err := r.Cancel(t.Context(), lane.From, "1"); err != nil {
				t.Fatal(err)
			}
			close(release)
			recorded()
			if out, err := r.WaitFinal(t.Context(), lane.From, "1"); err != nil || out.State != c.want || r.state("1").State != c.want {
				t.Errorf("told as %v, it is %v, want %v (%v)", out.State, r.state("1").State, c.want, err)
			}
			if told := r.told(api.EventMessageRefused); len(told) > 0 {
				t.Errorf("told as refused: %q", told)
			}
		})
	}
}

func ignore(Message, bool) {}

// A carrier has what was queued from memory, in order and with nothing left out,
// however it comes.
func TestFreshMessages(t *testing.T) {
	message := func(seq int64, size int) Message {
		return Message{Seq: seq, From: lane.From, To: lane.To, Protocol: lane.Protocol, Instance: lane.Instance, Data: make([]byte, size)}
	}
	seqs := func(list []Message) (out []int64) {
		for _, m := range list {
			out = append(out, m.Seq)
		}
		return out
	}
	start := func() (*lanes, *liveLane) {
		s := new(lanes)
		s.init(time.Now, oneUser)
		s.load(nil, time.Hour)
		s.queued([]Message{message(1, 1), message(2, 1)}, time.Second, ignore)
		return s, s.pick()
	}
	wants := func(what string, s *lanes, l *liveLane, wantWhole bool, want ...int64) {
		t.Helper()
		list, whole, _ := s.begin(l)
		if whole != wantWhole || !slices.Equal(seqs(list), want) {
			t.Errorf("%s: %v %v, want %v %v", what, whole, seqs(list), wantWhole, want)
		}
	}
	s, l := start()
	wants("a new lane", s, l, true, 1, 2)
	s.queued([]Message{message(3, 1)}, time.Second, ignore)
	wants("what came meanwhile", s, l, true, 3)
	if s.kept != 0 || !s.done(l) {
		t.Errorf("%d bytes are kept", s.kept)
	}

	s, l = start()
	s.wait(l, time.Hour, api.Errorf(api.CodePeerUnreachable, "away"))
	s.queued([]Message{message(3, 1)}, time.Second, ignore)
	wants("a lane that waited", s, l, false)
	s.queued([]Message{message(4, 1), message(5, 1)}, time.Second, ignore)
	s.found(l, 4, false)
	wants("behind what the disk had", s, l, true, 5)
	s.forget(l)
	wants("once forgotten", s, l, false)
	s.found(l, 9, true)
	s.queued([]Message{message(10, 1)}, time.Second, ignore)
	wants("where the disk has more", s, l, false)

	s, l = start()
	s.queued([]Message{message(3, api.MaxPayload)}, time.Second, ignore)
	wants("more than a frame holds", s, l, false)
	if s.kept != 0 {
		t.Errorf("%d bytes are kept", s.kept)
	}

	s, l = start()
	s.changed(lane)
	wants("one was cancelled", s, l, false)

	s = new(lanes)
	s.init(time.Now, oneUser)
	s.queued([]Message{message(1, 1)}, time.Second, ignore)
	wants("before the disk was read", s, s.pick(), false)
}

// A message that is cancelled while its carrier is under way with others is not
// carried, and the others are not carried again.
func TestCancelledWhileKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		synctest.Wait() // it has begun
		release := make(chan struct{})
		r.is(func(m *router.Mail) ([]error, error) { <-release; return taken(m) })
		r.send(lane, "1")
		synctest.Wait()
		r.send(lane, "2", "3")
		if _, err := r.Cancel(t.Context(), lane.From, "2"); err != nil {
			t.Fatal(err)
		}
		close(release)
		r.wantStates("1 delivered", "2 cancelled", "3 delivered")
		if a := r.since(); len(a) != 2 || !slices.Equal(a[1].id, []string{"3"}) {
			t.Errorf("%v", a)
		}
	})
}

// A courier that ends records what was told before.
func TestStopRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := memory(t)
		r := newRigAt(t, dir)
		r.send(lane, "1")
		if m, err := r.WaitFinal(t.Context(), lane.From, "1"); err != nil || m.State != Delivered {
			t.Fatalf("%+v, %v", m, err)
		}
		r.stop()
		next := newRigAt(t, dir)
		next.wantStates("1 delivered")
		if a := next.since(); len(a) != 0 {
			t.Errorf("sent again: %v", a)
		}
	})
}

// An id that was forgotten, and is used for another message, is not the one that
// was answered before.
func TestForgottenIDIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.send(lane, "1")
		r.wantStates("1 delivered")
		if err := r.Courier.Forget(t.Context(), lane.From); err != nil {
			t.Fatal(err)
		}
		r.is(refusedAll(api.CodePeerUnreachable))
		r.send(lane, "1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if m, err := r.WaitFinal(ctx, lane.From, "1"); err != nil || r.Latest(m).State != Queued {
			t.Errorf("%+v, %v", r.Latest(m), err)
		}
		r.is(taken)
		r.Reachable(lane.To)
		r.wantStates("1 delivered")
		if a := r.since(); len(a) < 3 {
			t.Errorf("%d tries", len(a))
		}
	})
}
