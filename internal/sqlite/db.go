// Package sqlite opens a database as this project wants it: WAL, every commit
// synced to the disk, one writer, files of mode 0600, checked at the start and
// mended as far as possible. It alone imports the driver.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	modernc "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

var (
	// ErrDamaged is wrapped by errors that mean that the file's content is bad.
	// After one from Update or View, open the database again: Open repairs.
	ErrDamaged = errors.New("the database is damaged")
	// ErrNewer means that a newer version of the program wrote the schema.
	ErrNewer = errors.New("the database has a newer schema")
	// ErrDisk means that the disk did not take or give what was asked of it: it is
	// full, read-only or failing. The file's content is as good as before, and the
	// same may work later.
	ErrDisk = errors.New("the disk refused")
	// ErrElsewhere means that the folder of a database that is open is another one
	// now: its disk was exchanged or taken away, or it was moved. Such an error wraps
	// ErrDisk too.
	ErrElsewhere = errors.New("the folder is another one than it was")
	// ErrUnsafeFile means that the file is a link, a FIFO or somebody else's.
	ErrUnsafeFile = errors.New("not a plain file of our own")
)

// Options of Open. The zero value is usable.
type Options struct {
	Migrations []Migration
	// Readers bounds concurrent calls of View; 4 if zero. As many of Read run
	// beside them.
	Readers int
	// LightCheck is the size in bytes above which Open looks at the ends of each
	// table only, so that it takes no longer for a large file; the rest is for
	// CheckAll. None if zero.
	LightCheck int64
	// Salvage tells to which table a record of a damaged file belongs, and its
	// values in the order of that table's columns. It is called only where SQLite
	// could not read all, and gets the records of all tables, also old copies of
	// rows: it must know from the content that it is right, and sure that no
	// other copy is to be preferred. nil, or "": no table.
	Salvage func(rowid int64, row []any) (table string, values []any, sure bool)
	// Sealed are tables made by Seal of which every row's digest is checked by
	// Open. For small ones: it reads them whole.
	Sealed []string
	// Progress is told how Open gets on; may be nil.
	Progress *Progress
	// Before is the one that was open here, closed or not; may be nil. Open fails
	// with ErrElsewhere if this is another folder by now.
	Before *DB
}

// DB is an open database. Update calls run one after another, View calls beside
// them, each on a snapshot. Safe for concurrent use.
type DB struct {
	path     string
	writer   *sql.DB  // one connection
	readers  *sql.DB  // of View
	lookers  *sql.DB  // of Read: short statements do not wait for long lists
	stmts    sync.Map // of Read, *sql.Stmt by text
	recovery *Recovery
	batch    *Batch   // nil unless one was made
	mark     *logMark // nil until it is open
	place    *place

	closeOnce sync.Once
	closeErr  error
}

// Open opens or creates the database at path and brings its schema up to date.
// A damaged file is moved aside and what can be read of it is kept; Recovery
// then tells what became of it. Errors: ErrUnsafeFile, ErrNewer; ErrDisk,
// ErrElsewhere; ErrDamaged only if the repair itself failed otherwise: then the file
// is where it was.
func Open(ctx context.Context, path string, o Options) (*DB, error) {
	defer o.Progress.begin()()
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	at, err := newPlace(path, o.Before)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", classify(err))
	}
	aside, err := finishSwap(path)
	if err != nil {
		return nil, fmt.Errorf("finish the repair of %s: %w", path, classify(err))
	}
	if err := noteMissing(path, o.Before != nil); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, classify(err))
	}
	if err := shortLog(path); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, classify(err))
	}
	cut, err := cutLog(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, classify(err))
	}
	db, err := openChecked(ctx, at, o)
	if errors.Is(err, ErrDamaged) {
		if err = repair(ctx, path, err, o); err == nil {
			db, err = openChecked(ctx, at, o)
		}
	}
	if err != nil {
		return nil, err
	}
	if db.recovery, err = untold(path); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, classify(err)), db.Close())
	}
	if db.recovery == nil && aside != "" {
		db.recovery = &Recovery{MovedTo: aside}
	}
	if db.recovery != nil { // numbers may have been given that the file does not know
		if err := raiseSequences(ctx, db.writer); err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", path, classify(err)), db.Close())
		}
	}
	if cut {
		_ = db.foldLog(ctx) // else it is found again, and known
	}
	// Without them the next repair only brings back less, or more is kept.
	_ = errors.Join(keepLayout(ctx, db.writer, path), pruneDamaged(path))
	if err := at.opened(); err != nil {
		return nil, errors.Join(classify(err), db.Close())
	}
	db.mark = newLogMark(path)
	return db, nil
}

// openChecked opens the database that is to be at that place, checks it and migrates it.
func openChecked(ctx context.Context, at *place, o Options) (*DB, error) {
	path := at.path
	if err := prepareFile(path); err != nil {
		return nil, classify(err)
	}
	if emptied(path) {
		return nil, fmt.Errorf("open %s: %w: the file is empty", path, ErrDamaged)
	}
	db := open(at, o)
	if err := db.start(ctx, o); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("open %s: %w", path, classify(err))
	}
	return db, nil
}

// logPages is how long the log may grow before it is folded into the file, 16
// MiB: a page that many commits change is then folded once.
const logPages = "wal_autocheckpoint(4000)"

func open(at *place, o Options) *DB {
	readers := o.Readers
	if readers == 0 {
		readers = 4
	}
	db := &DB{path: at.path, place: at}
	db.writer = openPool(dsn(at.path, "rw", "journal_mode(WAL)", synchronous, logPages), at.ready)
	db.writer.SetMaxOpenConns(1)
	for _, pool := range []**sql.DB{&db.readers, &db.lookers} {
		*pool = openPool(dsn(at.path, "rw", synchronous, "query_only(1)"), at.ready)
		(*pool).SetMaxOpenConns(readers)
		(*pool).SetMaxIdleConns(1)
	}
	return db
}

// openPool connects nothing yet, so that it cannot fail. Each connection is made only
// if all checks pass.
func openPool(dsn string, checks ...func() error) *sql.DB {
	c := connector{driver: new(modernc.Driver), dsn: dsn, checks: checks}
	c.driver.MustRegisterDeterministicScalarFunction(digestFunction, -1, rowDigest)
	return sql.OpenDB(c)
}

// connector opens connections that know our functions; the driver's own one
// knows those of the whole process.
type connector struct {
	driver *modernc.Driver
	dsn    string
	checks []func() error
}

func (c connector) Driver() driver.Driver { return c.driver }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, check := range c.checks {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return c.driver.Open(c.dsn)
}

// dsn names path as a URI, so that '?', '#' and '%' in it do no harm. A writer
// takes its lock when the transaction begins: an upgrade later would fail with
// SQLITE_BUSY at once, whatever the timeout.
func dsn(path, mode string, pragmas ...string) string {
	q := url.Values{"mode": {mode}, "_txlock": {"immediate"}}
	q.Add("_pragma", "busy_timeout(5000)")
	q.Add("_pragma", "foreign_keys(1)")
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	return u.String()
}

func (db *DB) start(ctx context.Context, o Options) error {
	if err := db.writer.PingContext(ctx); err != nil {
		return ofFile(err)
	}
	if err := db.checkAtStart(ctx, o.LightCheck); err != nil {
		return ofFile(err)
	}
	if err := writable(ctx, db.writer); err != nil {
		return err
	}
	if err := ours(ctx, db.writer, o.Migrations); err != nil {
		return err
	}
	if err := migrate(ctx, db.writer, o.Migrations); err != nil {
		return err
	}
	return checkSealed(ctx, db.writer, o.Sealed)
}

// ofFile is for statements that are always the same: what SQLite calls an error in
// them, such as a number of a format that it does not know, is the file's.
func ofFile(err error) error {
	if e, ok := errors.AsType[*modernc.Error](err); ok && e.Code()&0xff == lib.SQLITE_ERROR {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// writable finds a header that says that only newer programs may write: the file
// itself was opened for writing before. BEGIN alone does not tell.
func writable(ctx context.Context, db *sql.DB) error {
	version, err := schemaVersion(ctx, db)
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version=%d", version))
	if e, ok := errors.AsType[*modernc.Error](err); ok && e.Code() == lib.SQLITE_READONLY {
		err = fmt.Errorf("%w: its header forbids to write: %w", ErrDamaged, err)
	}
	return errors.Join(err, tx.Rollback())
}

// quickCheck reads every page. It finds broken structure, not changed content.
func quickCheck(ctx context.Context, db *sql.DB) error {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, verdict)
	}
	return nil
}

// Path tells where the database is, absolute.
func (db *DB) Path() string { return db.path }

// Recovery tells what Open repaired, also an earlier one of which nobody was told;
// nil if there was nothing. See Told.
func (db *DB) Recovery() *Recovery { return db.recovery }

// Update runs fn in a transaction that may write. It commits if fn returns nil;
// once Update returned nil the change survives a power cut. Otherwise nothing
// was changed, and the error is fn's own, or wraps ErrDamaged where it applies.
// fn must not keep tx, and must not call Update.
func (db *DB) Update(ctx context.Context, fn func(tx *sql.Tx) error) error {
	err := transact(ctx, db.writer, false, func(tx *sql.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return db.place.check()
	})
	if err == nil {
		db.mark.grown()
	}
	return db.fault(err)
}

// View runs fn on a snapshot that may only be read. Errors as with Update.
func (db *DB) View(ctx context.Context, fn func(tx *sql.Tx) error) error {
	return db.fault(transact(ctx, db.readers, true, fn))
}

// Read runs one statement on a snapshot of its own and gives fn its rows, of which
// fn returns the Err; it need not close them. The text must be a constant: it is prepared once and kept. Errors
// as with View.
func (db *DB) Read(ctx context.Context, fn func(rows *sql.Rows) error, query string, args ...any) error {
	stmt, err := db.prepared(ctx, query)
	if err != nil {
		return db.fault(classify(err))
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return db.fault(classify(err))
	}
	defer func() { _ = rows.Close() }()
	return db.fault(classify(fn(rows)))
}

func (db *DB) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := db.stmts.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := db.lookers.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if first, ok := db.stmts.LoadOrStore(query, s); ok {
		return first.(*sql.Stmt), s.Close()
	}
	return s, nil
}

// transact runs fn in a transaction, which ends when fn has returned and not when ctx
// ends, as one of database/sql would: that closes the connection, and a statement
// that fn prepares at this very moment is forgotten. To close such a one crashes in
// the driver. What fn does with ctx ends with it, and so does the wait for a lock.
func transact(ctx context.Context, pool *sql.DB, readOnly bool, fn func(tx *sql.Tx) error) error {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", classify(err))
	}
	defer func() { _ = conn.Close() }() // back to the pool
	begun, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stay := context.AfterFunc(ctx, end)
	tx, err := conn.BeginTx(begun, &sql.TxOptions{ReadOnly: readOnly})
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("begin: %w", classify(err))
	}
	defer func() { _ = tx.Rollback() }() // after a panic in fn, too
	if !stay() {
		return fmt.Errorf("begin: %w", ctx.Err())
	}
	if err := fn(tx); err != nil {
		return classify(err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", classify(err))
	}
	return nil
}

// refusals are the kernel's errors that mean ErrDisk.
func refusals() []error {
	return []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS}
}

// classify adds ErrDamaged and ErrDisk to the driver's and the kernel's errors
// that mean it.
func classify(err error) error {
	if !errors.Is(err, ErrDisk) && slices.ContainsFunc(refusals(), func(e error) bool { return errors.Is(err, e) }) {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	e, ok := errors.AsType[*modernc.Error](err)
	if !ok || errors.Is(err, ErrDamaged) || errors.Is(err, ErrDisk) {
		return err
	}
	switch e.Code() & 0xff { // the primary code; the rest tells where
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case lib.SQLITE_FULL, lib.SQLITE_IOERR, lib.SQLITE_READONLY, lib.SQLITE_CANTOPEN:
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	return err
}

// leaveLog has SQLite not remove the log, which it does by its name, if the folder is
// another one by now.
func (db *DB) leaveLog() error {
	if !errors.Is(db.place.here(), ErrElsewhere) {
		return nil
	}
	conn, err := db.writer.Conn(context.Background())
	if err != nil {
		return err
	}
	return errors.Join(conn.Raw(func(c any) error {
		f, ok := c.(modernc.FileControl)
		if !ok {
			return fmt.Errorf("the driver's connection is a %T", c)
		}
		_, err := f.FileControlPersistWAL("main", 1)
		return err
	}), conn.Close())
}

// Close waits for transactions that run and folds the log into the file.
// It may be called again.
func (db *DB) Close() error {
	db.closeOnce.Do(func() {
		// The writer goes last: readers cannot fold the log. Neither can a
		// connection that has statements left.
		db.closeErr = errors.Join(db.mark.end(), db.batch.close(), db.readers.Close(), db.lookers.Close(), db.leaveLog(), db.writer.Close())
	})
	return db.closeErr
}
