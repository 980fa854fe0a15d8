package remote

import (
	"context"
	"errors"
	"testing"

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
	other()
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
		release()
	}()
	release()
	<-next
	if len(s.of) != 0 {
		t.Errorf("%d turns are remembered that nobody has", len(s.of))
	}
}
