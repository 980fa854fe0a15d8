package messages

import (
	"context"
	"os"
	"path/filepath"
	"slices"
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

// What cannot be recorded is sent again, later, and told as delivered all the while.
func TestDeliveredCannotBeRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		synctest.Wait() // it has begun
		impossible := settled{lane, []Message{{}}, []Outcome{{State: Queued}}}
		r.records.add(impossible) // fails what is recorded with it
		r.send(lane, "1")
		synctest.Wait()
		r.since()
		recorded()
		m, err := r.s.Outgoing(t.Context(), lane.From, "1")
		if m = r.Latest(m); err != nil || m.State != Delivered {
			t.Errorf("it is told as %v, %v", m.State, err)
		}
		time.Sleep(2 * time.Second)
		if a := r.since(); len(a) != 1 {
			t.Errorf("sent again: %v", a)
		}
		r.wantStates("1 delivered")
	})
}

func ignore(Message) {}

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
