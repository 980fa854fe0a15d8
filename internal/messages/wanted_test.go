package messages

import (
	"fmt"
	"slices"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

func (b *box) wants(sender identity.ID, protocol string) bool {
	b.t.Helper()
	first, err := b.Want(b.t.Context(), id("b"), sender, protocol, "default")
	b.must(err)
	return first
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
	served := func(may func(identity.ID) bool) []identity.ID {
		senders, err := b.Served(t.Context(), id("b"), "Mail", "default", may)
		b.must(err)
		return senders
	}
	if got := served(func(who identity.ID) bool { return who == id("c") }); !slices.Equal(got, []identity.ID{id("c")}) {
		t.Errorf("%v", got)
	}
	if got := served(nil); !slices.Equal(got, []identity.ID{id("a")}) || served(nil) != nil {
		t.Errorf("%v", got)
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
