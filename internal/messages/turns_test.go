package messages

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// Whoever lists as much as he likes waits for himself. Others' lists, and mail on its
// way, his own too, go on.
func TestListsOfOneUserHoldUpNobodyElse(t *testing.T) {
	b := newBox(t)
	b.put(lane, "1")
	other := Lane{From: id("b"), To: id("a"), Protocol: "Text", Instance: "default"}
	b.take(other.message("2", "x"))
	for range turnsEach {
		leave, err := b.Turn(t.Context(), id("A")) // alice's other identity
		b.must(err)
		defer leave()
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Turn(gone, id("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("one more of a user who has %d: %v", turnsEach, err)
	}
	leave, err := b.Turn(t.Context(), id("b"))
	b.must(err)
	leave()
	b.wantMailMoves(id("a"), lane, other)
}

// Mail moves also where all that lists are read with are taken.
func TestListsHoldUpNoMail(t *testing.T) {
	b := newBox(t)
	b.put(lane, "1")
	other := Lane{From: id("b"), To: id("a"), Protocol: "Text", Instance: "default"}
	b.take(other.message("2", "x"))
	const readers = 4 // of sqlite.Options
	release, entered := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(release)
	for range readers {
		wg.Go(func() {
			if err := b.view(context.Background(), func(*sql.Tx) error {
				entered <- struct{}{}
				<-release
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
		<-entered
	}
	b.wantMailMoves(id("a"), lane, other)
}

// wantMailMoves wants what carriers, waiters and mailmen read, without a wait.
func (b *box) wantMailMoves(owner identity.ID, out, in Lane) {
	b.t.Helper()
	if list := b.head(out); len(list) != 1 {
		b.t.Errorf("the head of the lane is %v", ids(list))
	}
	if o := b.state(owner, "1"); o.State != Queued {
		b.t.Errorf("%+v", o)
	}
	list, err := b.Waiting(b.t.Context(), owner, in.Protocol, in.Instance, Page{})
	if b.must(err); len(list) != 1 {
		b.t.Errorf("%d messages wait for the program", len(list))
	}
}

// Turns are given back, in the order they were asked for, and nothing stays of a
// user who has none.
func TestTurnsAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurns(oneUser)
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				leave, err := s.enter(t.Context(), id("a"))
				if err != nil {
					t.Error(err)
					return
				}
				defer leave()
				time.Sleep(time.Duration(2*i+1) * time.Second) // no two at one moment
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			if _, err := s.enter(ctx, id("a")); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		if !slices.IsSorted(order) || len(order) != 10 || len(s.of) != 0 {
			t.Errorf("%v, %d users left", order, len(s.of))
		}
	})
}
