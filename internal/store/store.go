// Package store keeps identities' names, contacts, blocks, grants, invites, and
// what is known of peers' nodes, in DIR/fastn.db.
//
// Every object belongs to an identity of this machine, its owner; which user
// owns that identity is the keystore's to say. All of it is also held in memory,
// from which every look-up is answered. A write commits to the disk, then
// changes the memory, then returns; only what peers send too fast changes
// the memory alone.
//
// Errors for users are *api.Error of CodeNotFound, CodeConflict, CodeBadRequest
// or CodeOverBudget; any other error means that the disk failed.
package store

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/lru"
	"github.com/fastn-stack/fastnd/internal/sqlite"
)

// File is the database's name in the state folder.
const File = "fastn.db"

// Store is safe for concurrent use.
type Store struct {
	recovery *sqlite.Recovery // of Open
	progress *sqlite.Progress
	now      func() time.Time

	// writing is held from the decision over the commit to the change of the
	// memory, so that a writer decides on what is on the disk. A channel, so that
	// who waits can give up.
	writing chan struct{}
	db      *sqlite.DB                       // guarded by writing
	broken  error                            // why db could not be opened again; guarded by writing
	pause   sqlite.Pause                     // between repairs; guarded by writing
	puts    *lru.Map[identity.ID, time.Time] // see mayPut; guarded by writing
	// mu guards state; it is never held during I/O.
	mu       sync.RWMutex
	state    *state
	onChange []func(Change)
	// onRecovery is called after a repair while in use.
	onRecovery func(*sqlite.Recovery)
}

// Open opens or creates dir/fastn.db. A damaged file is repaired as far as
// possible; Recovery tells. progress is told of each time that the file is opened,
// again after damage too; it may be nil. Errors wrap sqlite.ErrDamaged,
// sqlite.ErrNewer or sqlite.ErrUnsafeFile where they apply.
func Open(ctx context.Context, dir string, progress *sqlite.Progress) (*Store, error) {
	db, err := openDB(ctx, filepath.Join(dir, File), progress, nil)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s := &Store{db: db, recovery: db.Recovery(), progress: progress, writing: make(chan struct{}, 1),
		pause: sqlite.Pause{Free: freeRepairs}, now: func() time.Time { return micro(time.Now()) },
		puts: lru.New[identity.ID, time.Time](putsWatched)}
	if s.state, err = load(ctx, db); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("store: load %s: %w", db.Path(), err)
	}
	return s, nil
}

// openDB opens path, in the folder of before unless that is nil.
func openDB(ctx context.Context, path string, progress *sqlite.Progress, before *sqlite.DB) (*sqlite.DB, error) {
	return sqlite.Open(ctx, path, sqlite.Options{Migrations: migrations(), Sealed: tables(), Progress: progress, Before: before})
}

// Recovery tells what Open repaired, or an Open before it of which nobody was told;
// nil if there was nothing.
func (s *Store) Recovery() *sqlite.Recovery { return s.recovery }

// Told forgets what Recovery says; until then each Open says it again.
func (s *Store) Told(ctx context.Context) error {
	if err := s.await(ctx); err != nil {
		return err
	}
	defer s.pass()
	return s.db.Told()
}

// Close waits for the writer and ends the store; it may be called again.
func (s *Store) Close() error {
	s.writing <- struct{}{}
	defer s.pass()
	s.broken = nil
	return s.db.Close()
}

// OnChange has fn called after every change that can alter what is allowed, once
// it is committed and visible to look-ups, in the writer's goroutine and before
// its method returns. Two writers' calls may overlap and come in either order:
// decide again on what the store says now. fn must not write to the store.
// Set it before the first write.
func (s *Store) OnChange(fn func(Change)) { s.onChange = append(s.onChange, fn) }

// Change tells whose access may have changed. Who is zero if it may concern
// everybody (a grant to contacts or anyone, an identity gone offline).
type Change struct {
	Owner, Who identity.ID
	Kind       ChangeKind
	Name       string // of the contact or identity concerned, "" if it has none
	Protocol   string // of a grant
	Instance   string // of a grant
}

// ChangeKind is what happened.
type ChangeKind uint8

// Kinds of changes.
const (
	IdentityAdded ChangeKind = iota + 1
	IdentityRemoved
	IdentityRenamed
	IdentityOnline
	IdentityOffline
	ContactAdded
	ContactRemoved
	ContactRenamed
	ContactBlocked
	ContactUnblocked
	GrantAdded
	GrantRemoved
)

// Withdraws tells whether something allowed before may be refused now.
func (k ChangeKind) Withdraws() bool {
	switch k {
	case IdentityRemoved, IdentityOffline, ContactRemoved, ContactBlocked, GrantRemoved:
		return true
	}
	return false
}

// plan is a write that was decided on: statements to commit, what to do to the
// memory after, and whom to tell. An empty plan changes nothing.
type plan struct {
	stmts   []stmt
	apply   []func(*state)
	changes []Change
}

type stmt struct {
	sql  string
	args []any
}

func (p *plan) exec(sql string, args ...any) {
	for i, a := range args {
		args[i] = column(a)
	}
	p.stmts = append(p.stmts, stmt{sql, args})
}

// then has fn change the memory once the statements are committed.
func (p *plan) then(fn func(*state)) { p.apply = append(p.apply, fn) }

// micro gives t as the disk keeps it, so that memory says the same.
func micro(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()) }

// column gives a value in the form that the schema has it.
func column(v any) any {
	switch v := v.(type) {
	case identity.ID:
		return v[:]
	case time.Time:
		return v.UnixMicro()
	case Who:
		return v.column()
	}
	return v
}

// write has decide look at the state and plan a change, and carries that out.
// decide must not change the state.
func (s *Store) write(ctx context.Context, decide func(st *state, p *plan) error) error {
	changes, err := s.commit(ctx, decide)
	if err != nil {
		return err
	}
	for _, c := range changes {
		for _, fn := range s.onChange {
			fn(c)
		}
	}
	return nil
}

func (s *Store) commit(ctx context.Context, decide func(st *state, p *plan) error) ([]Change, error) {
	if err := s.await(ctx); err != nil {
		return nil, err
	}
	defer s.pass()
	var p plan
	if err := decide(s.state, &p); err != nil { // only writers change it
		return nil, err
	}
	// A caller that goes away now must not leave disk and memory at odds.
	if err := s.runMended(context.WithoutCancel(ctx), p.stmts); err != nil {
		return nil, fmt.Errorf("store: write: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fn := range p.apply {
		fn(s.state)
	}
	return p.changes, nil
}

// await waits for a writer's turn, which ends with pass.
func (s *Store) await(ctx context.Context) error {
	select {
	case s.writing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("store: %w", ctx.Err())
	}
	if err := ctx.Err(); err != nil { // the select may take either
		s.pass()
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func (s *Store) pass() { <-s.writing }

// Backup writes a consistent copy of what is on the disk to path, of mode 0600,
// which must not exist. Writers wait meanwhile.
func (s *Store) Backup(ctx context.Context, path string) error {
	if err := s.await(ctx); err != nil {
		return err
	}
	defer s.pass()
	if err := s.db.Backup(ctx, path); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// Turn takes a writer's whole way and changes nothing; the disk is not written. A
// writer that hangs keeps it waiting until ctx ends.
func (s *Store) Turn(ctx context.Context) error {
	if err := s.await(ctx); err != nil {
		return err
	}
	defer s.pass()
	if err := s.db.Update(ctx, func(*sql.Tx) error { return nil }); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// run commits all or nothing.
func (s *Store) run(ctx context.Context, stmts []stmt) error {
	if len(stmts) == 0 {
		return nil
	}
	return s.db.Update(ctx, func(tx *sql.Tx) error {
		for _, q := range stmts {
			if _, err := tx.ExecContext(ctx, q.sql, q.args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// read gives fn the state; fn must copy what it returns.
func read[T any](s *Store, fn func(st *state) T) T {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return fn(s.state)
}
