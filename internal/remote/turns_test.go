package remote

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
)

func TestTurns(t *testing.T) {
	var s turns
	a, b := identity.ID{1}, identity.ID{2}
	release, err := s.take(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.take(t.Context(), b) // does not wait for a
	if err != nil {
		t.Fatal(err)
	}
	other(false)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.take(gone, a); !errors.Is(err, context.Canceled) {
		t.Errorf("two have the same turn: %v", err)
	}
	next := make(chan struct{})
	go func() {
		defer close(next)
		release, err := s.take(t.Context(), a)
		if err != nil {
			t.Error(err)
			return
		}
		release(false)
	}()
	release(false)
	<-next
	if len(s.of) != 0 {
		t.Errorf("%d turns are remembered that nobody has", len(s.of))
	}
}

// Behind a full frame its sender, and nobody else, waits as long as that took.
func TestTurnsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s turns
		a, b := identity.ID{1}, identity.ID{2}
		for _, c := range []struct{ work, rest time.Duration }{{time.Millisecond, time.Millisecond}, {time.Minute, mostRest}} {
			release, err := s.take(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(c.work)
			release(true)
			began := time.Now()
			for _, who := range []struct {
				id    identity.ID
				waits time.Duration
			}{{b, 0}, {a, c.rest}} {
				release, err := s.take(t.Context(), who.id)
				if err != nil {
					t.Fatal(err)
				}
				if d := time.Since(began); d != who.waits {
					t.Errorf("work of %v: a turn after %v, want %v", c.work, d, who.waits)
				}
				release(false)
			}
		}
		// A rest is remembered while nobody waits, and forgotten later.
		for i, id := range []identity.ID{a, b, {3}} {
			release, err := s.take(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			release(i < 2)
			time.Sleep(time.Second)
		}
		if len(s.of) != 0 {
			t.Errorf("%d turns are remembered that nobody has", len(s.of))
		}
	})
}
