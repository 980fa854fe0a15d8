package messages

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

func (b *box) wants(sender identity.ID, protocol string) bool {
	b.t.Helper()
	first, err := b.Want(b.t.Context(), id("b"), sender, protocol, "default")
	b.must(err)
	return first
}

func (b *box) served(w Wanted) (again bool) {
	b.t.Helper()
	again, err := b.Served(b.t.Context(), id("b"), w)
	b.must(err)
	return again
}

func (b *box) want(sender identity.ID, protocol string) Wanted {
	b.t.Helper()
	list := b.wanted()
	i := slices.IndexFunc(list, func(w Wanted) bool { return w.Sender == sender && w.Protocol == protocol })
	if i < 0 {
		b.t.Fatalf("%s is not wanted: %+v", protocol, list)
	}
	return list[i]
}

func (b *box) wanted() []Wanted { b.t.Helper(); return b.wantedOf(id("b")) }

func (b *box) wantedOf(owner identity.ID) []Wanted {
	b.t.Helper()
	list, err := b.Wanted(b.t.Context(), owner)
	b.must(err)
	return list
}

func TestWantedIsToldOnce(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	for i, want := range []bool{true, false, false} {
		if got := b.wants(id("a"), "Mail"); got != want {
			t.Errorf("%d: %v", i, got)
		}
	}
	b.reopen()
	if b.wants(id("a"), "Mail") || !b.wants(id("c"), "Mail") || !b.wants(id("a"), "Chat") {
		t.Error("told wrongly after a restart")
	}
	if list := b.wanted(); len(list) != 3 || list[2].Count+list[1].Count+list[0].Count != 6 {
		t.Errorf("%+v", list)
	}
	for _, sender := range []string{"c", "a"} {
		b.served(b.want(id(sender), "Mail"))
	}
	b.reopen()
	if list := b.wanted(); len(list) != 1 || list[0].Protocol != "Chat" {
		t.Errorf("%+v", list)
	}
	if !b.wants(id("a"), "Mail") {
		t.Error("not told again after it was served and is no more")
	}
	// Told once also if they come together.
	firsts := make(chan bool, 20)
	for range cap(firsts) {
		go func() { f, _ := b.Want(t.Context(), id("b"), id("a"), "New", "default"); firsts <- f }()
	}
	n := 0
	for range cap(firsts) {
		if <-firsts {
			n++
		}
	}
	if n != 1 {
		t.Errorf("told %d times", n)
	}
}

// A sender that has asked in vain since it was looked up is not forgotten silently: it
// waits, and would not be told.
func TestWantedMeanwhile(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	ask := func() Wanted {
		b.clock.advance(time.Second)
		b.wants(id("a"), "Mail")
		return b.want(id("a"), "Mail")
	}
	w := ask()
	if first, second := b.served(w), b.served(w); first || second || len(b.wanted()) != 0 {
		t.Errorf("asked meanwhile, who did not: %+v", b.wanted())
	}
	w = ask()
	if ask(); !b.served(w) || len(b.wanted()) != 1 {
		t.Errorf("not asked meanwhile, who did: %+v", b.wanted())
	}
	b.reopen()
	if !b.served(w) || len(b.wanted()) != 1 {
		t.Errorf("what was listed before a start is forgotten: %+v", b.wanted())
	}
	w = b.want(id("a"), "Mail")
	b.served(w)
	if ask(); !b.served(w) || len(b.wanted()) != 1 {
		t.Errorf("not asked meanwhile, who was forgotten, and did: %+v", b.wanted())
	}
}

// Whoever asks while it is forgotten is noted, in memory and on the disk.
func TestWantedWhileItIsForgotten(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	for range testutil.Rounds(200, 3000) {
		b.wants(id("a"), "Mail")
		w := b.want(id("a"), "Mail")
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := b.Served(t.Context(), id("b"), w); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if _, err := b.Want(t.Context(), id("b"), id("a"), "Mail", "default"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(b.wanted()) != 1 {
			t.Fatalf("it is not noted: %+v", b.wanted())
		}
		b.reopen()
		if len(b.wanted()) != 1 {
			t.Fatalf("it is not on the disk: %+v", b.wanted())
		}
	}
}

// A peer that asks for names without end has the user told of 16 a day.
func TestWantedIsBounded(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	told := func(names int) (n int) {
		for i := range names {
			if b.wants(id("a"), fmt.Sprint(i)) {
				n++
			}
		}
		return n
	}
	if n := told(100); n != wantsPerSender || len(b.wanted()) != wantsPerSender {
		t.Errorf("told %d times, %d are kept", n, len(b.wanted()))
	}
	b.clock.advance(day)
	if !b.wants(id("a"), "another") || b.wants(id("a"), "another") || len(b.wanted()) != wantsPerSender {
		t.Errorf("%+v", b.wanted())
	}
	n := 0
	for i := range wantsPerOwner + 10 {
		if b.wants(id(fmt.Sprint("s", i)), "Mail") {
			n++
		}
	}
	// Those of the day before give way, "another" does not.
	if n != wantsPerOwner-1 || len(b.wanted()) != wantsPerOwner {
		t.Errorf("told %d times, %d are kept", n, len(b.wanted()))
	}
	b.reopen()
	if len(b.wanted()) != wantsPerOwner {
		t.Errorf("%d are kept", len(b.wanted()))
	}
}
