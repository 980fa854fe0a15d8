package messages

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// cut gives what is on the disk in dir now, as a machine that goes down leaves it.
func cut(t *testing.T, dir string) string {
	t.Helper()
	to := memory(t)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() == File+"-shm" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// deliveredThenCut sends "1", has it told as delivered, and gives the disk of that
// moment.
func deliveredThenCut(t *testing.T) (dir string) {
	t.Helper()
	dir = memory(t)
	r := newRigAt(t, dir)
	synctest.Wait()
	r.send(lane, "1")
	out, err := r.WaitFinal(t.Context(), lane.From, "1")
	if err != nil || out.State != Delivered {
		t.Fatalf("%+v, %v", out, err)
	}
	dir = cut(t, dir)
	r.stop()
	return dir
}

// What was told as delivered is so after the machine went down at that moment, also
// if it stays off for longer than the message lives.
func TestDeliveredStaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := deliveredThenCut(t)
		time.Sleep(8 * day)
		r := newRigAt(t, dir)
		time.Sleep(2 * time.Minute)
		r.wantStates("1 delivered")
		if told := r.told(api.EventMessageExpired); len(told) > 0 {
			t.Errorf("told as expired: %q", told)
		}
		if a := r.since(); len(a) != 1 {
			t.Errorf("%d tries", len(a))
		}
	})
}

// Nor can it be cancelled then.
func TestDeliveredIsNotCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigCut(t, deliveredThenCut(t), slowly)
		synctest.Wait()
		_, err := r.Cancel(t.Context(), lane.From, "1")
		wantCode(t, err, api.CodeConflict)
		r.wantStates("1 delivered")
	})
}

// A log that is lost may have held that something was delivered.
func TestDoubtWhereTheLogIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := deliveredThenCut(t)
		if err := os.Remove(filepath.Join(dir, File+"-wal")); err != nil {
			t.Fatal(err)
		}
		if r := newRigStopped(t, dir); !r.s.WasCut() || r.s.Close() != nil {
			t.Error("there is no doubt")
		}
	})
}

// slowly has answers take a moment.
func slowly(m *router.Mail) ([]error, error) {
	time.Sleep(time.Second)
	return taken(m)
}

// newRigCut is a rig on what a machine that went down has left.
func newRigCut(t *testing.T, dir string, answer func(*router.Mail) ([]error, error)) *rig {
	t.Helper()
	r := newRigStopped(t, dir)
	r.is(answer)
	r.run()
	return r
}

// Where the receiver cannot be asked a message expires all the same, and can be
// cancelled.
func TestDoubtEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := deliveredThenCut(t)
		time.Sleep(8 * day)
		r := newRigCut(t, dir, refusedAll(api.CodePeerUnreachable))
		time.Sleep(doubtFor + 2*time.Minute) // of a clock after a week
		r.wantStates("1 expired")
	})
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRigCut(t, deliveredThenCut(t), func(*router.Mail) ([]error, error) {
			<-release
			return nil, api.Errorf(api.CodeTimeout, "no answer")
		})
		synctest.Wait()
		start := time.Now()
		if _, err := r.Cancel(t.Context(), lane.From, "1"); err != nil || time.Since(start) != doubtCancels {
			t.Errorf("cancelled after %v: %v", time.Since(start), err)
		}
		close(release)
	})
}

// After a proper end nothing is in doubt: what expired meanwhile is not sent.
func TestNoDoubtAfterAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := memory(t)
		r := newRigAt(t, dir)
		r.is(refusedAll(api.CodePeerUnreachable))
		r.send(lane, "1")
		synctest.Wait()
		r.stop()
		time.Sleep(8 * day)
		next := newRigAt(t, dir)
		time.Sleep(doubtFor + 2*time.Minute) // of a clock after a week
		next.wantStates("1 expired")
		if a := next.since(); len(a) != 0 {
			t.Errorf("tried %v", a)
		}
	})
}

// A refusal is told once it is on the disk.
func TestRefusalIsRecordedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := memory(t)
		r := newRigAt(t, dir)
		r.is(func(m *router.Mail) ([]error, error) {
			return slices.Repeat([]error{api.Errorf(api.CodeBadRequest, "no")}, len(m.Letters)), nil
		})
		r.send(lane, "1")
		out, err := r.WaitFinal(t.Context(), lane.From, "1")
		if err != nil || out.State != Refused {
			t.Fatalf("%+v, %v", out, err)
		}
		dir = cut(t, dir)
		r.stop()
		next := newRigAt(t, dir)
		next.wantStates("1 refused")
		if a := next.since(); len(a) != 0 {
			t.Errorf("tried again: %v", a)
		}
	})
}

// A lane is in doubt from when it is loaded, once: a carrier that begins at once
// looks for what has expired too.
func TestLoadedInDoubt(t *testing.T) {
	var s lanes
	s.init(time.Now, oneUser)
	s.cut = true
	list := []Waiting{{Lane: lane, NextTry: time.Now().Add(time.Minute)}}
	s.load(list, time.Hour)
	doubts := s.doubts(&lane)
	if len(doubts) != 1 || s.waiting[0].next.After(time.Now()) {
		t.Fatalf("%d in doubt, due in %v", len(doubts), time.Until(s.waiting[0].next))
	}
	s.makeReady(s.waiting[0])
	l := s.pick()
	if _, _, doubt := s.begin(l); !doubt {
		t.Error("the carrier is not told")
	}
	s.done(l)
	<-doubts[0]
	s.load(list, time.Hour)
	if n := len(s.doubts(nil)); n != 0 {
		t.Errorf("%d in doubt later", n)
	}
}
