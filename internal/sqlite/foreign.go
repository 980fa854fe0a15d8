package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// ours refuses as damaged what is a database, but not the one that the steps make.
func ours(ctx context.Context, db *sql.DB, steps []Migration) error {
	is, err := foreign(ctx, db, steps)
	if err == nil && is {
		err = fmt.Errorf("%w: its tables are not those of this program", ErrDamaged)
	}
	return err
}

// foreign tells whether db is another program's, or its schema is not whole. One
// of a newer schema must have some of the tables that are known, and not been
// known to be older.
func foreign(ctx context.Context, db *sql.DB, steps []Migration) (bool, error) {
	version, err := schemaVersion(ctx, db)
	if err != nil {
		return false, err
	}
	newer := version > len(steps)
	if newer {
		version = len(steps)
	}
	model := openPool("file::memory:")
	model.SetMaxOpenConns(1)
	defer func() { _ = model.Close() }()
	if err := migrate(ctx, model, steps[:version]); err != nil {
		return false, err
	}
	want, err := describe(ctx, model)
	if err != nil {
		return false, err
	}
	got, err := describe(ctx, db)
	if err != nil {
		return false, err
	}
	known := func(o string) bool { return slices.Contains(got, o) }
	if newer {
		return len(want) > 0 && !slices.ContainsFunc(want, known) || slices.Equal(got, want) && keptAs(ctx, db, version), nil
	}
	return !slices.Equal(got, want), nil
}

// keptAs tells whether the file beside db says that it is at version: then a
// newer one that it tells itself is a changed byte.
func keptAs(ctx context.Context, db *sql.DB, version int) bool {
	path, err := column(ctx, db, "SELECT file FROM pragma_database_list WHERE name = 'main'")
	if err != nil || len(path) != 1 {
		return false
	}
	kept, err := keptLayout(path[0])
	return err == nil && kept.Version == version
}

// describe lists tables with their columns, and indexes, triggers and SQLite's own
// tables with their texts: one byte can make another condition of an index, and
// a letter in upper case has SQLite not find its table of sequences.
func describe(ctx context.Context, db *sql.DB) ([]string, error) {
	return column(ctx, db, `SELECT type || ' ' || name || ' of ' || tbl_name ||
		coalesce((SELECT ': ' || group_concat(c.name || ' ' || c.type || ' ' || c.pk) FROM pragma_table_info(s.name) c), '') ||
		iif(type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\', '', coalesce(': ' || sql, ''))
		FROM sqlite_schema s WHERE name NOT LIKE 'sqlite\_stat%' ESCAPE '\' ORDER BY 1`)
}

// emptied tells whether a database of ours is there without a single page, and
// is not just new.
func emptied(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Size() > 0 {
		return false
	}
	_, err = keptLayout(path)
	return err == nil
}

// noteMissing looks for a database of ours of which the file is gone: nothing is
// damaged then. A log that is left is for the repair. wasOpen tells that the file was
// there, also if all that is beside it is gone with it.
func noteMissing(path string, wasOpen bool) error {
	earlier, err := untold(path)
	if err != nil {
		return err
	}
	switch info, err := os.Lstat(path); {
	case err == nil && (info.Size() > 0 || earlier == nil || !earlier.Missing):
		return nil // there, and not a file that was made in its place just now
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil // told by who opens it
	}
	if _, err := keptLayout(path); err != nil && !wasOpen {
		return nil // it was never there, or nobody knows any more
	}
	if err := (Recovery{Missing: true}).add(earlier).keep(path, recoverySuffix); err != nil {
		return err
	}
	if log, err := os.Stat(path + "-wal"); err == nil && log.Size() > 0 {
		return nil
	}
	if err := os.Remove(path + schemaSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(path)
}
