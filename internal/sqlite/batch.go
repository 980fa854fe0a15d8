package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// maxBatch bounds the functions that share one transaction, so that the first
// of them does not wait for ever.
const maxBatch = 512

// Batch has many callers share one transaction, and so one sync of the disk.
// A caller alone is served at once; who comes while a commit runs is gathered
// for the next one. Safe for concurrent use. Its DB closes it.
type Batch struct {
	db    *DB
	hooks BatchHooks

	mu      sync.Mutex
	queue   []*job
	leading bool // one caller works for all; guarded by mu

	stmts statements // only the one that leads uses it
}

// BatchHooks are called around each transaction by the goroutine that runs it;
// each may be nil.
type BatchHooks struct {
	// Begin comes before the first function, again if they are run again.
	Begin func()
	// Save comes before a function whose failure undoes it alone, Undo if it did:
	// then all is as it was at Save.
	Save, Undo func()
	// Finish comes before the commit. Its error fails all functions.
	Finish func(tx *Tx) error
	// End tells whether what Begin began was committed, before callers return.
	End func(committed bool)
}

// NewBatch makes db's Batch; there may be one, made before its first use.
func (db *DB) NewBatch(h BatchHooks) *Batch {
	db.batch = &Batch{db: db, hooks: h}
	return db.batch
}

// job is one caller's function.
type job struct {
	fn       func(tx *Tx) error
	err      error
	panicked any
	lead     bool      // is to lead; guarded by Batch.mu
	wake     chan bool // true: lead; false: done
}

// Do runs fn in a transaction, with other callers' functions before and after
// it, and returns once that is committed and synced, or fn's own error, which
// undoes fn alone. fn may be run twice, so it must leave nothing behind outside
// of tx but what the last run sets; it must not keep tx and must not call the
// DB. A full or failing disk fails all functions of the transaction; nothing of
// them is kept then. A caller whose ctx ends leaves unless its turn has come.
func (b *Batch) Do(ctx context.Context, fn func(tx *Tx) error) error {
	return b.DoPlaced(ctx, func() {}, fn)
}

// DoPlaced is Do that calls placed as soon as fn has its place: functions of later
// calls run after it.
func (b *Batch) DoPlaced(ctx context.Context, placed func(), fn func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.do(ctx, placed, &job{fn: fn, wake: make(chan bool, 1)})
}

func (b *Batch) do(ctx context.Context, placed func(), j *job) error {
	b.mu.Lock()
	b.queue = append(b.queue, j)
	lead := !b.leading
	b.leading = true
	b.mu.Unlock()
	placed()
	if !lead {
		select {
		case lead = <-j.wake:
		case <-ctx.Done():
			if b.withdraw(j) {
				return ctx.Err()
			}
			lead = <-j.wake
		}
	}
	if lead {
		b.lead()
	}
	return j.result()
}

func (j *job) result() error {
	if j.panicked != nil {
		panic(j.panicked)
	}
	return j.err
}

// withdraw takes j out of the queue, if it still waits there.
func (b *Batch) withdraw(j *job) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.queue, j)
	if i < 0 || j.lead {
		return false
	}
	b.queue = slices.Delete(b.queue, i, i+1)
	return true
}

// lead serves the head of the queue, of which the caller is the first, and
// hands the lead to the next one that waits.
func (b *Batch) lead() {
	b.mu.Lock()
	n := min(len(b.queue), maxBatch)
	jobs := slices.Clone(b.queue[:n])
	b.queue = slices.Delete(b.queue, 0, n)
	b.mu.Unlock()

	b.serve(jobs)

	b.mu.Lock()
	b.leading = len(b.queue) > 0
	if b.leading {
		b.queue[0].lead = true
		b.queue[0].wake <- true
	}
	b.mu.Unlock()
	for _, j := range jobs[1:] {
		j.wake <- false
	}
}

// serve answers all jobs.
func (b *Batch) serve(jobs []*job) {
	// Not the leader's context: it works for the others too.
	conn, err := b.db.writer.Conn(context.Background())
	if err == nil {
		err = conn.Raw(func(c any) error { return b.run(c, jobs) })
		err = errors.Join(err, conn.Close())
	}
	for _, j := range jobs {
		if j.err == nil {
			j.err = err
		}
		j.err = b.db.fault(j.err)
	}
}

// run runs the jobs' functions. Its error is that of those that have none of their own.
// Savepoints cost more than most functions do, so that they are used only once
// one was seen to fail.
func (b *Batch) run(conn any, jobs []*job) error {
	if err := b.stmts.use(conn); err != nil {
		return err
	}
	tx := &Tx{stmts: &b.stmts}
	again, err := b.attempt(tx, jobs, false)
	if again {
		jobs = slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool { return j.err != nil })
		_, err = b.attempt(tx, jobs, true)
	}
	return err
}

// attempt runs one transaction. again tells that it was undone since one
// function failed, and that the others are to be run without that one.
func (b *Batch) attempt(tx *Tx, jobs []*job, guarded bool) (again bool, err error) {
	if len(jobs) == 0 {
		return false, nil
	}
	if _, err := tx.Exec("BEGIN IMMEDIATE"); err != nil {
		return false, fmt.Errorf("begin: %w", err)
	}
	committed := false
	if b.hooks.Begin != nil {
		b.hooks.Begin()
	}
	defer func() {
		if !committed {
			tx.rollback()
		}
		if b.hooks.End != nil {
			b.hooks.End(committed)
		}
	}()
	for _, j := range jobs {
		if guarded {
			err = b.guarded(tx, j)
		} else {
			j.run(tx)
			again = j.err != nil
		}
		switch {
		case tx.fatal != nil:
			return false, tx.fatal
		case again || err != nil:
			return len(jobs) > 1, err
		}
	}
	if b.hooks.Finish != nil {
		if err := b.hooks.Finish(tx); err != nil {
			return false, err
		}
	}
	if err := b.db.place.check(); err != nil {
		return false, err
	}
	if _, err := tx.Exec("COMMIT"); err != nil {
		return false, fmt.Errorf("commit: %w", err)
	}
	committed = true
	b.db.mark.grown()
	return false, nil
}

// run calls the function; a panic goes to the one who asked.
func (j *job) run(tx *Tx) {
	defer func() {
		if j.panicked = recover(); j.panicked != nil {
			j.err = fmt.Errorf("panic: %v", j.panicked)
		}
	}()
	j.err = j.fn(tx)
}

// guarded runs the function so that its failure undoes it alone.
func (b *Batch) guarded(tx *Tx, j *job) error {
	if b.hooks.Save != nil {
		b.hooks.Save()
	}
	if _, err := tx.Exec("SAVEPOINT one"); err != nil {
		return err
	}
	if j.run(tx); j.err != nil && tx.fatal == nil {
		if _, err := tx.Exec("ROLLBACK TO one"); err != nil {
			return err
		}
		if b.hooks.Undo != nil {
			b.hooks.Undo()
		}
	}
	if tx.fatal != nil {
		return tx.fatal
	}
	_, err := tx.Exec("RELEASE one")
	return err
}

// close gives the statements back, once nothing runs any more. b may be nil.
func (b *Batch) close() error {
	if b == nil || b.stmts.conn == nil {
		return nil
	}
	conn, err := b.db.writer.Conn(context.Background())
	if err != nil {
		return err
	}
	return errors.Join(conn.Raw(b.stmts.close), conn.Close())
}
