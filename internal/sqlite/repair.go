package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Recovery tells what became of a damaged database.
type Recovery struct {
	// MovedTo is where the damaged file is now; nothing reads it any more.
	MovedTo string
	// Cause is what SQLite said. Empty if an earlier start was interrupted
	// between the copy and the exchange of the files.
	Cause string
	// Tables tells for each table, by name, how far it could be read.
	Tables []TableRecovery
}

// TableRecovery counts rows. What was lost cannot be counted, only that some was.
type TableRecovery struct {
	Name   string
	Copied int
	Lost   bool // the table could not be read to its end
}

// Lost tells whether anything could not be read.
func (r *Recovery) Lost() bool {
	return slices.ContainsFunc(r.Tables, func(t TableRecovery) bool { return t.Lost })
}

const (
	damagedSuffix  = ".damaged-"
	buildingSuffix = ".rebuilding"
	rebuiltSuffix  = ".rebuilt-"
	stampLayout    = "20060102T150405.000000000Z"
)

// repair copies what reads of the damaged database at path into a new one and
// exchanges the two. Interrupted anywhere, the next Open begins again or
// finishes: until the copy is whole the damaged file stays in its place.
func repair(ctx context.Context, path string, o Options) (*Recovery, error) {
	building := path + buildingSuffix
	if err := removeDB(building); err != nil {
		return nil, fmt.Errorf("repair %s: %w", path, err)
	}
	r, err := rebuild(ctx, path, building, o)
	if err != nil {
		return nil, fmt.Errorf("repair %s: %w: %w", path, ErrDamaged, err)
	}
	stamp := time.Now().UTC().Format(stampLayout)
	if err := errors.Join(os.Rename(building, path+rebuiltSuffix+stamp), syncDir(path)); err != nil {
		return nil, fmt.Errorf("repair %s: %w", path, err)
	}
	swapped, err := finishSwap(path)
	if err != nil {
		return nil, fmt.Errorf("repair %s: %w", path, err)
	}
	r.MovedTo = swapped.MovedTo
	return r, nil
}

// finishSwap puts a whole rebuilt database in its place, if there is one, and
// the damaged one aside. Each step may have been done before.
func finishSwap(path string) (*Recovery, error) {
	rebuilt, err := filepath.Glob(globEscape(path+rebuiltSuffix) + "*Z")
	if err != nil || len(rebuilt) == 0 {
		return nil, err
	}
	from := rebuilt[len(rebuilt)-1]
	aside := path + damagedSuffix + strings.TrimPrefix(from, path+rebuiltSuffix)
	// The log first: with the database away, it would meet the rebuilt one.
	for _, part := range []string{"-wal", ""} {
		err := os.Rename(path+part, aside+part)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if err := os.Remove(path + "-shm"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.Rename(from, path); err != nil {
		return nil, err
	}
	return &Recovery{MovedTo: aside}, syncDir(path)
}

// globEscape makes Glob take every character of s as it is.
func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

// removeDB removes the three files of a database.
func removeDB(path string) error {
	for _, part := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + part); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// rebuild makes a new database at to, with the schema that from had.
func rebuild(ctx context.Context, from, to string, o Options) (*Recovery, error) {
	old := openPool(dsn(from, "ro"))
	old.SetMaxOpenConns(1)
	defer func() { _ = old.Close() }()

	// A schema that cannot be read has no rows that can.
	version, err := schemaVersion(ctx, old)
	if err != nil {
		version = len(o.Migrations)
	}
	if version > len(o.Migrations) {
		return nil, fmt.Errorf("%w: it is at %d, this program knows up to %d", ErrNewer, version, len(o.Migrations))
	}
	r := &Recovery{Cause: cause(ctx, old)}
	if err := prepareFile(to); err != nil {
		return nil, err
	}
	fresh := open(to, o)
	if err := migrate(ctx, fresh.writer, o.Migrations[:version]); err != nil {
		return nil, errors.Join(err, fresh.Close())
	}
	tables, err := tableNames(ctx, fresh.writer)
	if err != nil {
		return nil, errors.Join(err, fresh.Close())
	}
	for _, t := range tables {
		copied, err := copyTable(ctx, old, fresh.writer, t)
		if err != nil {
			return nil, errors.Join(err, fresh.Close())
		}
		r.Tables = append(r.Tables, copied)
	}
	return r, fresh.Close()
}

func cause(ctx context.Context, db *sql.DB) string {
	if err := quickCheck(ctx, db); err != nil {
		return err.Error()
	}
	return ""
}

func tableNames(ctx context.Context, db *sql.DB) ([]string, error) {
	rows, err := db.QueryContext(ctx,
		"SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var names []string
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		names = append(names, n)
	}
	return names, rows.Err()
}
