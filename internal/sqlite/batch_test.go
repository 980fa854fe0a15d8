package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

const insertNote = "INSERT INTO notes VALUES (?, ?)"

func putNote(n int) func(tx *Tx) error {
	return func(tx *Tx) error {
		_, err := tx.Exec(insertNote, int64(n), noteText(n))
		return err
	}
}

// gate holds a Batch in its first function until all of waiting are queued.
func (b *Batch) hold(t *testing.T, waiting int) (release func()) {
	t.Helper()
	held, free, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- b.Do(context.Background(), func(*Tx) error { close(held); <-free; return nil })
	}()
	<-held
	return func() {
		for {
			b.mu.Lock()
			n := len(b.queue)
			b.mu.Unlock()
			if n == waiting {
				break
			}
		}
		close(free)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestBatchSharesOneCommit(t *testing.T) {
	testutil.LeakCheck(t)
	db := openAt(t, filepath.Join(t.TempDir(), "x.db"), notes)
	var commits atomic.Int64
	b := db.NewBatch(BatchHooks{End: func(ok bool) {
		if ok {
			commits.Add(1)
		}
	}})
	const n = 50
	release := b.hold(t, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := b.Do(t.Context(), putNote(i)); err != nil {
				t.Error(err)
			}
		})
	}
	release()
	wg.Wait()
	if got := commits.Load(); got != 2 || count(t, db) != n {
		t.Errorf("%d commits, %d rows", got, count(t, db))
	}
}

// A function has its place before those before it are committed.
func TestBatchTellsOfAPlace(t *testing.T) {
	testutil.LeakCheck(t)
	db := openAt(t, filepath.Join(t.TempDir(), "x.db"), notes)
	b := db.NewBatch(BatchHooks{})
	const n = 3
	release := b.hold(t, n)
	var order []int
	var wg sync.WaitGroup
	for i := range n {
		placed := make(chan struct{})
		wg.Go(func() {
			err := b.DoPlaced(t.Context(), func() { close(placed) }, func(tx *Tx) error {
				order = append(order, i)
				return putNote(i)(tx)
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-placed
	}
	release()
	wg.Wait()
	if !slices.Equal(order, []int{0, 1, 2}) {
		t.Errorf("they ran as %v", order)
	}
}

func TestBatchFailureUndoesItselfOnly(t *testing.T) {
	testutil.LeakCheck(t)
	db := openAt(t, filepath.Join(t.TempDir(), "x.db"), notes)
	var pending, total int
	b := db.NewBatch(BatchHooks{
		Begin: func() { pending = 0 },
		End: func(ok bool) {
			if ok {
				total += pending
			}
		},
	})
	mine := errors.New("mine")
	const n = 30
	release := b.hold(t, n)
	var wg sync.WaitGroup
	errs, panics := make([]error, n), make([]any, n)
	for i := range n {
		wg.Go(func() {
			defer func() { panics[i] = recover() }()
			errs[i] = b.Do(t.Context(), func(tx *Tx) error {
				if err := putNote(i)(tx); err != nil {
					return err
				}
				switch i % 10 {
				case 3:
					return mine
				case 5:
					return putNote(i)(tx) // the key is taken
				case 7:
					panic("oh")
				}
				pending++
				return nil
			})
		})
	}
	release()
	wg.Wait()
	for i := range n {
		var want string
		switch i % 10 {
		case 3:
			want = "mine"
		case 5:
			want = "UNIQUE"
		case 7:
			if panics[i] != "oh" {
				t.Errorf("%d: panicked with %v", i, panics[i])
			}
			continue
		}
		if panics[i] != nil || want == "" && errs[i] != nil || want != "" && !strings.Contains(fmt.Sprint(errs[i]), want) {
			t.Errorf("%d: %v, %v", i, errs[i], panics[i])
		}
	}
	if got := count(t, db); got != n*7/10 || total != got {
		t.Errorf("%d rows are left, %d counted", got, total)
	}
	// One alone that fails leaves nothing either, and the next one is served.
	if err := b.Do(t.Context(), func(tx *Tx) error { _ = putNote(1000)(tx); return mine }); !errors.Is(err, mine) {
		t.Error(err)
	}
	if err := b.Do(t.Context(), putNote(1001)); err != nil || count(t, db) != n*7/10+1 {
		t.Errorf("%v, %d rows", err, count(t, db))
	}
}

func TestBatchFinishFailsAll(t *testing.T) {
	testutil.LeakCheck(t)
	db := openAt(t, filepath.Join(t.TempDir(), "x.db"), notes)
	mine := errors.New("mine")
	fail := true
	b := db.NewBatch(BatchHooks{Finish: func(*Tx) error {
		if fail {
			return mine
		}
		return nil
	}})
	if err := b.Do(t.Context(), putNote(1)); !errors.Is(err, mine) || count(t, db) != 0 {
		t.Errorf("%v, %d rows", err, count(t, db))
	}
	fail = false
	if err := b.Do(t.Context(), putNote(1)); err != nil || count(t, db) != 1 {
		t.Errorf("%v, %d rows", err, count(t, db))
	}
}

// A caller that goes away while it waits leaves nothing behind; one whose turn has
// come gets the truth.
func TestBatchCancel(t *testing.T) {
	testutil.LeakCheck(t)
	db := openAt(t, filepath.Join(t.TempDir(), "x.db"), notes)
	b := db.NewBatch(BatchHooks{})
	release := b.hold(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	gone, stays := make(chan error, 1), make(chan error, 1)
	go func() { gone <- b.Do(ctx, putNote(1)) }()
	go func() { stays <- b.Do(t.Context(), putNote(2)) }()
	for queued := 0; queued < 2; {
		b.mu.Lock()
		queued = len(b.queue)
		b.mu.Unlock()
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	release()
	if err := <-stays; err != nil || count(t, db) != 1 {
		t.Errorf("%v, %d rows", err, count(t, db))
	}
	ctx, cancel = context.WithCancel(t.Context())
	err := b.Do(ctx, func(tx *Tx) error { cancel(); return putNote(3)(tx) })
	if err != nil || count(t, db) != 2 {
		t.Errorf("%v, %d rows", err, count(t, db))
	}
	if err := b.Do(ctx, putNote(4)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// An error on which SQLite may have undone everything fails everything: what
// comes after it would else be committed alone.
func TestBatchFatalErrorFailsAll(t *testing.T) {
	testutil.LeakCheck(t)
	db := openAt(t, filepath.Join(t.TempDir(), "x.db"), notes)
	if _, err := db.writer.Exec("PRAGMA max_page_count=20"); err != nil {
		t.Fatal(err)
	}
	b := db.NewBatch(BatchHooks{})
	const n = 3
	release := b.hold(t, n)
	var wg sync.WaitGroup
	var failed atomic.Int64
	for i := range n {
		wg.Go(func() {
			err := b.Do(t.Context(), func(tx *Tx) error {
				if i == 1 {
					_, err := tx.Exec(insertNote, int64(1000+i), strings.Repeat("x", 100*pageSize))
					_ = err // even if the caller does not care
					return nil
				}
				return putNote(i)(tx)
			})
			if IsFull(err) {
				failed.Add(1)
			}
		})
	}
	release()
	wg.Wait()
	if failed.Load() != n || count(t, db) != 0 {
		t.Errorf("%d of %d failed, %d rows", failed.Load(), n, count(t, db))
	}
	if err := b.Do(t.Context(), putNote(1)); err != nil || count(t, db) != 1 {
		t.Errorf("%v, %d rows", err, count(t, db))
	}
}

// Close folds the log although statements were kept.
func TestBatchClose(t *testing.T) {
	testutil.LeakCheck(t)
	path := filepath.Join(t.TempDir(), "x.db")
	db := openAt(t, path, notes)
	b := db.NewBatch(BatchHooks{})
	if err := b.Do(t.Context(), putNote(1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Do(t.Context(), func(tx *Tx) error {
		var texts []string
		err := tx.Query(func(row []any) error { texts = append(texts, row[0].(string)); return nil }, "SELECT text FROM notes")
		if err != nil || len(texts) != 1 || texts[0] != noteText(1) {
			t.Errorf("%q, %v", texts, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if left := asideOf(t, strings.TrimSuffix(path, ".db")); len(left) != 2 { // with the schema's
		t.Errorf("left: %v", left)
	}
	if err := b.Do(t.Context(), putNote(2)); err == nil {
		t.Error("a closed database was written")
	}
}
