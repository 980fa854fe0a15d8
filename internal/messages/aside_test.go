package messages

import (
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

// What somebody has seen of the rows set aside counts no more, what comes later does.
func TestAsideThatWasSeen(t *testing.T) {
	testutil.LeakCheck(t)
	s, err := Open(t.Context(), t.TempDir(), Options{Limits: func() Limits { return Limits{} }, Owner: func(identity.ID) (uint32, bool) { return 0, false }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	now := time.Now()
	put := func(found time.Time) {
		t.Helper()
		err := s.write(t.Context(), func(tx *sqlite.Tx) error {
			_, err := tx.Exec("INSERT INTO aside (box, seq, found, reason) VALUES ('inbox', 1, ?, '')", found.UnixMicro())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(now.Add(-time.Hour))
	put(now)
	if err := s.Prune(t.Context()); err != nil || s.AsideCount() != 2 { // it counts
		t.Fatalf("%d count, %v", s.AsideCount(), err)
	}
	s.AsideSeen(s.AsideLast())
	if s.AsideCount() != 0 {
		t.Errorf("%d count that were seen", s.AsideCount())
	}
	last := s.AsideLast()
	put(now.Add(-100 * day))
	for range 2 {
		if err := s.Prune(t.Context()); err != nil || s.AsideLast() != last+1 {
			t.Errorf("the last is %d after %d, %v", s.AsideLast(), last, err)
		}
	}
	s.AsideSeen(s.AsideLast())
	put(now.Add(-10 * time.Minute)) // the clock was ahead before
	if err := s.Prune(t.Context()); err != nil || s.AsideCount() != 1 {
		t.Errorf("a later one: %d, %v", s.AsideCount(), err)
	}
	err = s.write(t.Context(), func(tx *sqlite.Tx) error { _, err := tx.Exec("DELETE FROM aside"); return err })
	if err == nil {
		err = s.Prune(t.Context())
	}
	if put(now); err != nil || s.Prune(t.Context()) != nil || s.AsideCount() != 1 {
		t.Errorf("numbers that begin anew: %d, %v", s.AsideCount(), err)
	}
}

// Rows that are set aside while somebody else counts them are counted once.
func TestAsideCountedMeanwhile(t *testing.T) {
	b := newBox(t)
	b.put(lane, "1", "2")
	b.damage(replace(t, "text of 1", "text of X"))
	b.damage(replace(t, "text of 2", "text of X"))
	b.o.OnAside = func(Aside) {
		b.o.OnAside = nil
		b.must(b.Prune(t.Context())) // it counts
	}
	b.must(b.CheckAll(t.Context()))
	if n := b.AsideCount(); n != 2 {
		t.Errorf("%d count, want 2", n)
	}
}

// Who is told that a row was set aside, or finds it gone, finds it counted.
func TestAsideIsCountedWhenItIsGone(t *testing.T) {
	b := newBox(t)
	b.put(lane, "1", "2")
	b.damage(replace(t, "text of 1", "text of X"))
	n := int64(-1)
	b.o.OnAside = func(Aside) { n = b.AsideCount() }
	b.must(b.CheckAll(t.Context()))
	if n != 1 {
		t.Errorf("%d count when it is told, want 1", n)
	}
}
