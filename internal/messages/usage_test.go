package messages

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/fastn-stack/fastnd/internal/sqlite"
)

// What a function counted and queued that then failed, beside others that did not,
// counts for nothing.
func TestCountersOfWhatIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		var told []string
		b.OnQueued(func(list []Message) { told = append(told, ids(list)...) })
		got := b.take(lane.message("1", "x"), lane.message("2", "x"), lane.message("3", "x"))
		mine := errors.New("mine")
		held := make(chan struct{})
		var wg sync.WaitGroup
		write := func(fn func(tx *sqlite.Tx) error) {
			wg.Go(func() { _ = b.write(t.Context(), fn) })
			synctest.Wait() // it is the next one in the queue
		}
		write(func(*sqlite.Tx) error { <-held; return nil })
		write(func(*sqlite.Tx) error { return mine }) // has the others guarded
		queue := func(id string) (err error) {
			return b.write(t.Context(), func(tx *sqlite.Tx) error {
				_, _, err := b.Store.put(tx, newOutRow(completed(b, lane.message(id, "x"))), 1, nil)
				return err
			})
		}
		wg.Go(func() { _ = queue("before") })
		synctest.Wait()
		write(func(tx *sqlite.Tx) error {
			r, err := inAt(tx, lane.To, got[0].Seq)
			if err == nil {
				err = b.drop(tx, r)
			}
			_, _, putErr := b.Store.put(tx, newOutRow(completed(b, lane.message("undone", "x"))), 1, nil)
			return errors.Join(err, putErr, mine)
		})
		wg.Go(func() { _ = queue("after") })
		synctest.Wait()
		close(held)
		wg.Wait()
		if n := b.Unread(lane.To); n != 3 {
			t.Errorf("%d are unread, want 3", n)
		}
		b.checkUsage()
		if want := []string{"before", "after"}; !slices.Equal(told, want) || !slices.Equal(b.queued(), want) {
			t.Errorf("told of %q, queued are %q", told, b.queued())
		}
	})
}

// completed is m as Put fills it in.
func completed(b *box, m Message) Message {
	b.must(b.complete(&m))
	return m
}
