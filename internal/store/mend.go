package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fastn-stack/fastnd/internal/sqlite"
)

// writtenKey is where Heal writes, so that it writes something.
const writtenKey = "written"

// OnRecovery has fn called when the file was found damaged while in use and made
// anew, of which nothing is lost: all of it is in memory. fn is called in the
// writer's goroutine and must not write to the store. Set it before the first write.
func (s *Store) OnRecovery(fn func(*sqlite.Recovery)) { s.onRecovery = fn }

// Heal finds out whether the store can be written again, by a write.
func (s *Store) Heal(ctx context.Context) error {
	return s.SetMeta(ctx, writtenKey, time.Now().UTC().Format(time.RFC3339Nano))
}

// freeRepairs is how many repairs an hour there are without a pause.
const freeRepairs = 3

// runMended is run, and if the file is damaged a second one on a new file. It is
// for the writer whose turn it is.
func (s *Store) runMended(ctx context.Context, stmts []stmt) error {
	if len(stmts) == 0 {
		return nil
	}
	if s.broken != nil {
		if err := s.reopen(ctx, s.broken); err != nil {
			return err
		}
	}
	err := s.run(ctx, stmts)
	if !errors.Is(err, sqlite.ErrDamaged) {
		return err
	}
	_ = s.db.Suspect() // unmarked, Open only looks less closely
	if err := s.reopen(ctx, err); err != nil {
		return err
	}
	return s.run(ctx, stmts)
}

// reopen opens the file again, which repairs it, and writes to it what is in
// memory. cause is why: its error if it is too soon for another repair. It is for
// the writer whose turn it is.
func (s *Store) reopen(ctx context.Context, cause error) error {
	if left := s.pause.Left(s.now()); left > 0 && errors.Is(cause, sqlite.ErrDamaged) {
		return fmt.Errorf("%s was repaired and damaged again and again, the next repair is in %v: %w",
			s.db.Path(), left.Round(time.Second), cause)
	}
	_ = s.db.Close() // what it could not do is why it is opened again
	r, err := s.openAgain(ctx)
	if s.broken = err; r != nil || errors.Is(err, sqlite.ErrDamaged) {
		s.pause.Note(s.now())
	}
	if err != nil {
		return err
	}
	if r != nil && s.onRecovery != nil {
		s.onRecovery(r)
	}
	return nil
}

// openAgain tells what was repaired, also by an attempt before that failed later.
func (s *Store) openAgain(ctx context.Context) (*sqlite.Recovery, error) {
	db, err := openDB(ctx, s.db.Path(), s.progress, s.db)
	if err != nil {
		return nil, err
	}
	s.db = db
	var p plan
	s.state.dump(&p, s.now())
	if err := s.run(ctx, p.stmts); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	r := db.Recovery()
	if r != nil {
		// Nothing of it is lost any more. If this fails, the next start says that
		// more was lost than was.
		_ = db.Told()
	}
	return r, nil
}
