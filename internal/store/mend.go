package store

import (
	"context"
	"errors"
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

// runMended is run, and if the file is damaged a second one on a new file. It is
// for the writer whose turn it is.
func (s *Store) runMended(ctx context.Context, stmts []stmt) error {
	if len(stmts) == 0 {
		return nil
	}
	if s.broken {
		if _, err := s.reopen(ctx); err != nil {
			return err
		}
	}
	err := s.run(ctx, stmts)
	if !errors.Is(err, sqlite.ErrDamaged) {
		return err
	}
	_ = s.db.Suspect() // unmarked, Open only looks less closely
	r, reopenErr := s.reopen(ctx)
	if reopenErr != nil {
		return errors.Join(err, reopenErr)
	}
	if r != nil && s.onRecovery != nil {
		s.onRecovery(r)
	}
	return s.run(ctx, stmts)
}

// reopen opens the file again, which repairs it, and writes to it what is in
// memory. It is for the writer whose turn it is.
func (s *Store) reopen(ctx context.Context) (*sqlite.Recovery, error) {
	s.broken = true
	_ = s.db.Close() // what it could not do is why it is opened again
	db, err := openDB(ctx, s.db.Path())
	if err != nil {
		return nil, err
	}
	s.db = db
	var p plan
	s.state.dump(&p, s.now())
	if err := s.run(ctx, p.stmts); err != nil {
		return nil, err
	}
	s.broken = false
	return db.Recovery(), nil
}
