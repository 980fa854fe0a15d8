package store

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A writer's turn is waited for until the context ends, by Turn and by writers.
func TestTurn(t *testing.T) {
	s := open(t)
	if err := s.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Turn(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Turn while a writer hangs: %v", err)
	}
	if err := s.SetMeta(ctx, "k", "v"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write while another hangs: %v", err)
	}
	s.pass()
	if err := s.Turn(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.SetMeta(t.Context(), "k", "v"); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Turn(t.Context()) == nil {
		t.Error("a closed store's writer answered")
	}
}
