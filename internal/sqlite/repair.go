package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	damagedSuffix  = ".damaged-"
	buildingSuffix = ".rebuilding"
	salvageSuffix  = ".salvage"
	rebuiltSuffix  = ".rebuilt-"
	stampLayout    = "20060102T150405.000000000Z"
)

// repair copies what reads of the damaged database at path into a new one and
// exchanges the two. Interrupted anywhere, the next Open begins again or
// finishes: until the copy is whole the damaged file stays in its place. An error
// wraps ErrDisk if that is why, else ErrDamaged.
func repair(ctx context.Context, path string, damage error, o Options) error {
	r, err := rebuilt(ctx, path, o)
	if err == nil {
		r.Cause = damage.Error()
		err = exchange(path, *r)
	}
	if err = classify(err); err == nil {
		return nil
	}
	// What was built takes room that others may need.
	_ = errors.Join(removeDB(path+buildingSuffix), removeDB(path+salvageSuffix))
	if !errors.Is(err, ErrDisk) && !errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return damagedFile(path, fmt.Errorf("repair %s: %w", path, err))
}

// rebuilt makes the new database, not in its place yet.
func rebuilt(ctx context.Context, path string, o Options) (*Recovery, error) {
	if err := removeDB(path + buildingSuffix); err != nil {
		return nil, err
	}
	whole, rows, err := sizes(path)
	if err != nil {
		return nil, err
	}
	if err := room(path, rows); err != nil {
		return nil, err
	}
	from, err := readable(ctx, path, whole+rows)
	if err != nil {
		return nil, err
	}
	r, err := rebuild(ctx, from, path+buildingSuffix, o)
	if from != path {
		err = errors.Join(err, removeDB(from))
	}
	return r, err
}

// exchange puts the new database in the place of the damaged one, and keeps what
// is to be told.
func exchange(path string, r Recovery) error {
	earlier, err := untold(path)
	if err != nil {
		return err
	}
	s := stamp()
	r.MovedTo = path + damagedSuffix + s
	if err := r.add(earlier).keep(path, plannedSuffix); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(path+buildingSuffix, path+rebuiltSuffix+s), syncDir(path)); err != nil {
		return err
	}
	_, err = finishSwap(path)
	return err
}

func stamp() string { return time.Now().UTC().Format(stampLayout) }

// finishSwap puts a whole rebuilt database in its place, if there is one, and
// the damaged one aside, of which it gives the path. Each step may have been done
// before.
func finishSwap(path string) (aside string, err error) {
	rebuilt, err := filepath.Glob(globEscape(path+rebuiltSuffix) + "*Z")
	if err != nil || len(rebuilt) == 0 {
		return "", err
	}
	from := rebuilt[len(rebuilt)-1]
	aside = path + damagedSuffix + strings.TrimPrefix(from, path+rebuiltSuffix)
	// A log that is moved is not one that was lost.
	if err := ignoreAbsent(os.Remove(path + markSuffix)); err != nil {
		return "", err
	}
	// The log first: with the database away, it would meet the rebuilt one.
	for _, part := range []string{"-wal", ""} {
		if err := ignoreAbsent(os.Rename(path+part, aside+part)); err != nil {
			return "", err
		}
	}
	if err := ignoreAbsent(os.Remove(path + "-shm")); err != nil {
		return "", err
	}
	if err := ignoreAbsent(os.Rename(path+plannedSuffix, path+recoverySuffix)); err != nil {
		return "", err
	}
	if err := os.Rename(from, path); err != nil {
		return "", err
	}
	return aside, syncDir(path)
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// globEscape makes Glob take every character of s as it is.
func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

// removeDB removes the three files of a database.
func removeDB(path string) error {
	for _, part := range []string{"", "-wal", "-shm"} {
		if err := ignoreAbsent(os.Remove(path + part)); err != nil {
			return err
		}
	}
	return nil
}

// readable gives a database with the rows of the one at path: that itself, or a
// copy with another first page if the schema is not what it was, which together
// with the new database takes need bytes.
func readable(ctx context.Context, path string, need int64) (string, error) {
	kept, err := keptLayout(path)
	if err != nil {
		return path, nil // it was never kept, or is damaged too
	}
	if emptied(path) { // SQLite would remove its log
		return transplanted(ctx, path, need, kept)
	}
	old := openPool(dsn(path, "ro"))
	now, err := readLayout(ctx, old)
	if err := errors.Join(err, old.Close()); err == nil && (now.Sum == kept.Sum || now.Version > kept.Version) {
		return path, nil
	}
	return transplanted(ctx, path, need, kept)
}

func transplanted(ctx context.Context, path string, need int64, kept layout) (string, error) {
	if err := room(path, need); err != nil {
		return "", err
	}
	salvage := path + salvageSuffix
	if err := removeDB(salvage); err != nil {
		return "", err
	}
	return salvage, transplant(ctx, path, salvage, kept)
}

// rebuild makes a new database at to, with the schema that from had.
func rebuild(ctx context.Context, from, to string, o Options) (*Recovery, error) {
	old := openPool(dsn(from, "ro"))
	old.SetMaxOpenConns(1)
	defer func() { _ = old.Close() }()

	// A schema that cannot be read has no rows that can, and a file without one
	// is not ours, or nothing is left of it.
	version, err := schemaVersion(ctx, old)
	if err != nil || version == 0 {
		version = len(o.Migrations)
	}
	if version > len(o.Migrations) {
		if is, err := foreign(ctx, old, o.Migrations); err != nil || !is {
			return nil, newerSchema(version, len(o.Migrations))
		}
		version = len(o.Migrations)
	}
	if err := prepareFile(to); err != nil {
		return nil, err
	}
	// Until it is whole nothing needs it to be durable.
	fresh := openPool(dsn(to, "rw", "journal_mode(MEMORY)", "synchronous(OFF)"))
	fresh.SetMaxOpenConns(1)
	tables, err := fill(ctx, fresh, old, from, version, o)
	if err := errors.Join(err, fresh.Close()); err != nil {
		return nil, err
	}
	return &Recovery{Tables: tables}, syncFile(to)
}

// fill makes the schema of that version and copies into it what can be read.
func fill(ctx context.Context, fresh, old *sql.DB, from string, version int, o Options) ([]TableRecovery, error) {
	if err := migrate(ctx, fresh, o.Migrations[:version]); err != nil {
		return nil, err
	}
	names, err := tableNames(ctx, fresh)
	if err != nil {
		return nil, err
	}
	var tables []TableRecovery
	for _, t := range names {
		copied, err := copyTable(ctx, old, fresh, t, o.Progress)
		if err != nil {
			return nil, err
		}
		tables = append(tables, copied)
	}
	if err := carrySequences(ctx, old, fresh); err != nil {
		return nil, err
	}
	if o.Salvage != nil && (&Recovery{Tables: tables}).Lost() {
		return tables, copyRecords(ctx, from, fresh, o, tables)
	}
	return tables, nil
}

func tableNames(ctx context.Context, db *sql.DB) ([]string, error) {
	return column(ctx, db,
		"SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name")
}
