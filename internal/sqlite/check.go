package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// suspectSuffix names the mark of a database that was found damaged while it
// was open. It makes the next Open check the whole of it.
const suspectSuffix = ".suspect"

// wholeCheck is the size up to which Open compares indexes with their tables: a bad
// index hides rows from the statements that are to change them.
const wholeCheck = 16 << 20

// Suspect has the next Open of this database check all of it, whatever its
// options say, and repair it if that finds damage.
func (db *DB) Suspect() error {
	if err := db.place.here(); err != nil {
		return fmt.Errorf("mark %s as damaged: %w", db.path, err)
	}
	f, err := os.OpenFile(db.path+suspectSuffix, os.O_WRONLY|os.O_CREATE, fileMode)
	if err != nil {
		return fmt.Errorf("mark %s as damaged: %w", db.path, err)
	}
	if err := errors.Join(f.Close(), syncDir(db.path)); err != nil {
		return fmt.Errorf("mark %s as damaged: %w", db.path, err)
	}
	return nil
}

// CheckAll reads the whole database. Its error wraps ErrDamaged if it is
// damaged: then call Suspect and open it again. It goes table by table, so that
// the log can be folded in between.
func (db *DB) CheckAll(ctx context.Context) error {
	if err := db.place.check(); err != nil {
		return damagedFile(db.path, err)
	}
	tables, err := tableNames(ctx, db.readers)
	if err != nil {
		return db.fault(classify(err))
	}
	for _, t := range tables {
		if err := integrityCheck(ctx, db.readers, "("+quote(t)+")"); err != nil {
			return db.fault(fmt.Errorf("check table %s: %w", t, classify(err)))
		}
	}
	return nil
}

// integrityCheck reads every page as quickCheck does, and compares each index
// with its table: rows that an index does not have are not found.
func integrityCheck(ctx context.Context, db *sql.DB, what string) error {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check"+what).Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, verdict)
	}
	return nil
}

func (db *DB) checkAtStart(ctx context.Context, light int64) error {
	suspect := db.path + suspectSuffix
	_, err := os.Lstat(suspect)
	switch {
	case err == nil:
		if err := integrityCheck(ctx, db.writer, "(1)"); err != nil {
			return err
		}
		// Damage that this check does not see must not make us check for ever.
		return os.Remove(suspect)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	info, err := os.Stat(db.path)
	switch {
	case err != nil:
		return err
	case light > 0 && info.Size() > light:
		return lightCheck(ctx, db.writer)
	case info.Size() > wholeCheck:
		return quickCheck(ctx, db.writer)
	}
	return integrityCheck(ctx, db.writer, "(1)")
}

// lightCheck reads the schema and both ends of each table.
func lightCheck(ctx context.Context, db *sql.DB) error {
	if _, err := schemaVersion(ctx, db); err != nil {
		return err
	}
	tables, err := tableNames(ctx, db)
	if err != nil {
		return err
	}
	for _, t := range tables {
		for _, order := range []string{"ASC", "DESC"} {
			if err := readOne(ctx, db, "SELECT * FROM "+quote(t)+" NOT INDEXED ORDER BY rowid "+order+" LIMIT 1"); err != nil {
				return err
			}
		}
	}
	return nil
}

func readOne(ctx context.Context, db *sql.DB, query string) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	if rows.Next() {
		var raw []any
		columns, err := rows.Columns()
		if err != nil {
			return err
		}
		for range columns {
			raw = append(raw, new(sql.RawBytes))
		}
		if err := rows.Scan(raw...); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Snapshot is a View that goes on until it is closed. The log cannot be folded
// meanwhile.
type Snapshot struct{ tx *sql.Tx }

// Snapshot shows what is committed now. Within a Batch it is what was committed
// before the transaction.
func (db *DB) Snapshot(ctx context.Context) (*Snapshot, error) {
	tx, err := db.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, db.fault(fmt.Errorf("begin: %w", classify(err)))
	}
	// It is the first read that fixes what is seen.
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(new(int)); err != nil {
		return nil, db.fault(errors.Join(classify(err), tx.Rollback()))
	}
	return &Snapshot{tx}, nil
}

// Tx reads.
func (s *Snapshot) Tx() *sql.Tx { return s.tx }

// Close ends it.
func (s *Snapshot) Close() error { return s.tx.Rollback() }
