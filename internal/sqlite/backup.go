package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Backup writes a consistent copy of what is committed to path, of mode 0600,
// synced. path must not exist; it is removed again if Backup fails. Rows that are
// added to the copy are numbered above those that are added to the database later.
func (db *DB) Backup(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	// A connection of its own: those of View are not allowed to.
	from := openPool(dsn(db.path, "rw"), db.place.ready)
	_, err = from.ExecContext(ctx, "VACUUM INTO ?", path)
	err = db.fault(errors.Join(classify(err), from.Close()))
	if err == nil {
		err = ahead(ctx, path)
	}
	if err == nil {
		err = errors.Join(f.Sync(), syncDir(path))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("back up %s: %w", db.path, errors.Join(err, os.Remove(path)))
	}
	return nil
}

// ahead raises the sequences of the copy at path, which is synced afterwards.
func ahead(ctx context.Context, path string) error {
	db := openPool(dsn(path, "rw", "journal_mode(MEMORY)", "synchronous(OFF)"))
	db.SetMaxOpenConns(1)
	return errors.Join(classify(raiseSequences(ctx, db)), db.Close())
}
