// Package messages keeps queued and received messages in DIR/messages.db.
//
// Every write is committed and synced before its method returns; many callers
// share one commit. Each row carries a digest of its content, checked whenever
// it is read; one that fails is set aside, and the rest is served.
//
// Errors for users are *api.Error of CodeNotFound, CodeConflict, CodeBadRequest,
// CodeTooLarge, CodeExpired or CodeOverBudget; of CodeStorage if the disk refused
// and nothing was stored.
package messages

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/service/api"
)

// File is the database's name in the state folder.
const File = "messages.db"

// lightAbove is the size above which a start does not wait for a check of the whole
// file, which takes some 5 ms a MiB. Below it no index is used that does not fit its
// table: one bit of the one that knows what was taken has a message taken twice.
const lightAbove = 16 << 20

// Limits are the budgets of fastn.toml, all above 0.
type Limits struct {
	PerUIDQueuedMessages  int64
	PerUIDQueuedBytes     int64
	PerUIDStoredMessages  int64 // in any state, as is the next
	PerPeerStoredMessages int64
	PerPeerUnreadMessages int64
	PerPeerUnreadBytes    int64
	NodeMessageBytes      int64
	KeepRead              time.Duration // how long read messages are kept
}

// Options of Open. Limits and Owner are needed.
type Options struct {
	Now func() time.Time // time.Now if nil
	// Uptime is what no setting of the clock changes; since Open if nil.
	Uptime func() time.Duration
	Limits func() Limits // asked at each use
	// Owner tells whose identity of this machine id is. It must not wait.
	Owner func(id identity.ID) (uid uint32, ok bool)
	// MaySend tells why from may not send anything to the other now; nil for all may.
	// It must not wait.
	MaySend func(from, to identity.ID) error
	// UserName names a uid in refusals; nil for "uid N".
	UserName func(uid uint32) string
	// AsideSeen is the last row set aside that somebody has seen; see Store.AsideSeen.
	AsideSeen int64
	// OnAside is told of each row set aside, once that is committed; may be nil.
	OnAside func(Aside)
	// OnRecovery is told when the file was repaired while in use; may be nil. It
	// must not call the Store.
	OnRecovery func(*sqlite.Recovery)
	// Progress is told of each time that the file is opened; may be nil.
	Progress *sqlite.Progress
	// OnDisk is told each time that the disk refused; may be nil.
	OnDisk func(error)
}

// Store is safe for concurrent use.
type Store struct {
	o        Options
	path     string
	use      *usage // of the database that is open; guarded by mu
	want     *wants
	asks     atomic.Int64  // see wants
	changing chan struct{} // holds one while somebody changes what is wanted
	// What users read takes turns, so that none of them has all readers: lists, and
	// looks at few rows.
	lists, looks turns
	time         timekeeper

	// mu is held for reading while the database is in use, and for writing
	// while it is closed or opened again.
	mu       sync.RWMutex
	db       *sqlite.DB // nil if it could not be opened again, or is closed
	batch    *sqlite.Batch
	last     *sqlite.DB // the one that was open last
	recovery *sqlite.Recovery
	pause    sqlite.Pause // between repairs
	broken   error        // why db is nil

	mending atomic.Pointer[time.Time] // since when it is being opened again
	// mended holds one once it was opened again: what waits may be more than before.
	mended chan struct{}

	fresh    []Message       // what the transaction that runs has queued; its leader's
	cut      bool            // see WasCut
	onQueued func([]Message) // see OnQueued

	asideMu   sync.Mutex // held while counting
	aside     atomic.Int64
	asideSeen int64       // rowid of the last row set aside that does not count; guarded by asideMu
	asideLast int64       // of the last one; guarded by asideMu
	audit     atomic.Bool // usage may be wrong since rows were set aside
}

// Open opens or creates dir/messages.db. A damaged file is repaired as far as
// possible; Recovery tells. Of a large file it looks only at a few pages: CheckAll
// is for the rest. Errors wrap sqlite.ErrDamaged, sqlite.ErrNewer or sqlite.ErrUnsafeFile
// where they apply.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Uptime == nil {
		start := time.Now()
		o.Uptime = func() time.Duration { return time.Since(start) }
	}
	if o.MaySend == nil {
		o.MaySend = func(_, _ identity.ID) error { return nil }
	}
	if o.UserName == nil {
		o.UserName = func(uid uint32) string { return fmt.Sprintf("uid %d", uid) }
	}
	s := &Store{o: o, changing: make(chan struct{}, 1), asideSeen: o.AsideSeen, path: filepath.Join(dir, File), mended: make(chan struct{}, 1), lists: newTurns(o.Owner), looks: newTurns(o.Owner), time: timekeeper{uptime: o.Uptime}}
	s.cut = wasCut(s.path)
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if s.recovery = s.db.Recovery(); s.recovery != nil { // deliveries may be among what is lost
		s.cut = true
	}
	select {
	case <-s.mended: // nobody knew anything before
	default:
	}
	return s, nil
}

// open opens the database and loads what is kept in memory. Damage that only the
// loading meets is repaired too.
func (s *Store) open(ctx context.Context) error {
	db, err := s.tryOpen(ctx)
	if db != nil && errors.Is(err, sqlite.ErrDamaged) {
		if err := db.Suspect(); err != nil {
			return fmt.Errorf("messages: %w", err)
		}
		_, err = s.tryOpen(ctx)
	}
	return err
}

// tryOpen gives the database, closed, also if it could not be loaded.
func (s *Store) tryOpen(ctx context.Context) (*sqlite.DB, error) {
	db, err := sqlite.Open(ctx, s.path, sqlite.Options{Migrations: migrations(), LightCheck: lightAbove, Salvage: claim, Progress: s.o.Progress, Before: s.last})
	if err != nil {
		return nil, fmt.Errorf("messages: %w", err)
	}
	use, want := newUsage(s.o.Owner), newWants(&s.asks)
	queued := 0
	batch := db.NewBatch(sqlite.BatchHooks{
		Begin:  func() { use.begin(); s.fresh = nil },
		Save:   func() { use.save(); queued = len(s.fresh) },
		Undo:   func() { use.undo(); s.fresh = s.fresh[:queued] },
		Finish: func(tx *sqlite.Tx) error { return errors.Join(use.write(tx), s.time.note(tx, s.now())) },
		End:    func(committed bool) { use.end(committed); s.tellQueued(committed) },
	})
	if err := s.load(ctx, db, batch, use, want); err != nil {
		return db, errors.Join(fmt.Errorf("messages: load %s: %w", s.path, err), db.Close())
	}
	s.db, s.last, s.batch, s.use, s.want, s.broken = db, db, batch, use, want, nil
	select {
	case s.mended <- struct{}{}:
	default:
	}
	return db, nil
}

// OnQueued has fn told of messages that were queued, in the order of their Seq,
// once they are on the disk and before Put returns. It must not wait. It is called
// once, before any use.
func (s *Store) OnQueued(fn func([]Message)) { s.onQueued = fn }

func (s *Store) tellQueued(committed bool) {
	if committed && len(s.fresh) > 0 && s.onQueued != nil {
		s.onQueued(s.fresh)
	}
	s.fresh = nil
}

// Close waits for calls that run and ends the store; it may be called again.
func (s *Store) Close() error {
	err := s.flushWants(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	db := s.db
	s.db, s.batch, s.broken = nil, nil, errClosed
	return errors.Join(err, db.Close())
}

// Recovery tells what Open repaired, or an Open before it of which nobody was told;
// nil if there was nothing.
func (s *Store) Recovery() *sqlite.Recovery { return s.recovery }

// Told forgets what Recovery says, or OnRecovery was told; until then each Open
// says it again.
func (s *Store) Told() error {
	_, err := s.with(func(h handle) error { return h.db.Told() })
	return err
}

// Mending tells since when the file has been repaired while in use; ok is false if
// it is not. All other methods wait for that.
func (s *Store) Mending() (since time.Time, ok bool) {
	if t := s.mending.Load(); t != nil {
		return *t, true
	}
	return time.Time{}, false
}

// AsideCount tells how many rows were set aside, and neither pruned nor seen yet.
func (s *Store) AsideCount() int64 { return s.aside.Load() }

// AsideLast is the number of the row that was set aside last.
func (s *Store) AsideLast() int64 {
	s.asideMu.Lock()
	defer s.asideMu.Unlock()
	return s.asideLast
}

// AsideSeen has rows up to that number count no more. It waits for no repair.
func (s *Store) AsideSeen(last int64) {
	s.asideMu.Lock()
	defer s.asideMu.Unlock()
	if s.asideSeen = last; s.asideLast <= last {
		s.aside.Store(0)
	}
}

// countAside is for when nobody writes, or can.
func (s *Store) countAside(ctx context.Context, tx *sql.Tx) error {
	return s.countAsideBy(func(query string, args ...any) (n int64, err error) {
		err = tx.QueryRowContext(ctx, query, args...).Scan(&n)
		return n, err
	})
}

// recountAside is for when what was counted was not committed.
func (s *Store) recountAside(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	if s.write(ctx, func(tx *sqlite.Tx) error { return s.countAsideBy(tx.Int) }) != nil {
		_ = s.view(ctx, func(tx *sql.Tx) error { return s.countAside(ctx, tx) })
	}
}

// countAsideBy counts by a query that gives a number. All that changes the table counts in
// its own transaction, so that the last to count has seen the most.
func (s *Store) countAsideBy(number func(query string, args ...any) (int64, error)) error {
	s.asideMu.Lock()
	defer s.asideMu.Unlock()
	last, err := number("SELECT coalesce(max(rowid), 0) FROM aside")
	if err != nil {
		return err
	}
	if s.asideLast = last; last < s.asideSeen { // the last ones were lost: rather too many are told
		s.asideSeen = 0
	}
	n, err := number("SELECT count(*) FROM aside WHERE rowid > ?", s.asideSeen)
	if err != nil {
		return err
	}
	s.aside.Store(n)
	return nil
}

func (s *Store) now() time.Time { return micro(s.o.Now()) }

// micro gives t as the disk keeps it.
func micro(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()) }

// write runs fn in a transaction that it shares with others; see sqlite.Batch.
// fn may be run more than once.
func (s *Store) write(ctx context.Context, fn func(tx *sqlite.Tx) error) error {
	return s.sorted(ctx, func(h handle) error { return h.batch.Do(ctx, fn) })
}

// view runs fn on a snapshot. fn may be run more than once.
func (s *Store) view(ctx context.Context, fn func(tx *sql.Tx) error) error {
	return s.sorted(ctx, func(h handle) error { return h.db.View(ctx, fn) })
}

// read runs one statement of constant text; see sqlite.DB.Read. fn may be run more
// than once.
func (s *Store) read(ctx context.Context, fn func(rows *sql.Rows) error, query string, args ...any) error {
	return s.sorted(ctx, func(h handle) error { return h.db.Read(ctx, fn, query, args...) })
}

// sorted calls fn, again when damaged rows that it met were set aside, or the index
// that led to them was mended.
func (s *Store) sorted(ctx context.Context, fn func(h handle) error) error {
	const most = 100 // a row that is set aside is not met again
	for range most {
		var h handle
		err := s.healed(ctx, func(now handle) error { h = now; return fn(now) })
		d, ok := errors.AsType[*damagedRow](err)
		if !ok {
			return err
		}
		sound, err := s.setAside(ctx, []damagedRow{*d})
		if err == nil && sound {
			err = s.failure(s.heal(ctx, h.db, fmt.Errorf("%w: row %d of the %s is sound, and not what an index says: %s", sqlite.ErrDamaged, d.seq, d.box, d.reason)))
		}
		if err != nil {
			return err
		}
	}
	return s.failure(errors.New("too many damaged rows"))
}

// handle is the database while it is in use.
type handle struct {
	db    *sqlite.DB
	batch *sqlite.Batch
}

// healed calls fn, once more if that found the database damaged and it could be
// mended.
func (s *Store) healed(ctx context.Context, fn func(h handle) error) error {
	h, err := s.with(fn)
	if err == nil || h.db != nil && !errors.Is(err, sqlite.ErrDamaged) {
		return s.failure(err)
	}
	if herr := s.heal(ctx, h.db, err); herr != nil {
		return s.failure(herr)
	}
	_, err = s.with(fn)
	return s.failure(err)
}

func (s *Store) with(fn func(h handle) error) (handle, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := handle{s.db, s.batch}
	if h.db == nil {
		return h, s.broken
	}
	return h, fn(h)
}

// failure says what users can do about an error of the disk.
func (s *Store) failure(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if _, ok := errors.AsType[*api.Error](err); ok {
		return err
	}
	e := api.Errorf(api.CodeInternal, "the message store failed: nothing was stored")
	e = e.WithHint("ask an administrator to look into the journal of fastnd")
	if errors.Is(err, sqlite.ErrDamaged) {
		e = api.Errorf(api.CodeStorage, "the message store at %s is damaged: nothing was stored", s.path)
		e = e.WithHint("as administrator: look at that disk, and restore a backup if it does not recover by itself")
		err = &sqlite.FileError{Path: s.path, Err: err}
	}
	if errors.Is(err, sqlite.ErrDisk) {
		e = api.Errorf(api.CodeStorage, "the disk refused: the message store at %s cannot be written, nothing was stored", s.path)
		e = e.WithHint("look at that disk, then try again; the daemon needs no restart")
	}
	if errors.Is(err, sqlite.ErrUnsafeFile) {
		e = api.Errorf(api.CodeStorage, "the message store at %s cannot be used: nothing was stored", s.path)
		e = e.WithHint("as administrator: \"fastn status\" tells what is in its place")
		err = &sqlite.FileError{Path: s.path, Err: err}
	}
	if sqlite.IsFull(err) {
		e = api.Errorf(api.CodeStorage, "the disk is full: the message store at %s cannot be written, nothing was stored", s.path)
		e = e.WithHint("free some space on that disk, then try again; the daemon needs no restart")
	}
	err = fmt.Errorf("%w: %w", e, err)
	if e.Code == api.CodeStorage && s.o.OnDisk != nil {
		s.o.OnDisk(err)
	}
	return err
}
