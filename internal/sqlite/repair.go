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
	// Commits counts those at the log's end that are lost with a bad frame of it.
	// There may have been one more.
	Commits int
	// Tables tells for each table, by name, how far it could be read.
	Tables []TableRecovery
}

// TableRecovery counts rows.
type TableRecovery struct {
	Name   string
	Copied int
	Lost   bool // the table could not be read to its end, or not all rows are what was written
	// Missing is how many rows were lost, as an index tells it; 0 if Lost without
	// it being known how many.
	Missing int
}

// Lost tells whether anything could not be read.
func (r *Recovery) Lost() bool {
	return r.Commits > 0 || slices.ContainsFunc(r.Tables, func(t TableRecovery) bool { return t.Lost })
}

const (
	damagedSuffix  = ".damaged-"
	buildingSuffix = ".rebuilding"
	salvageSuffix  = ".salvage"
	rebuiltSuffix  = ".rebuilt-"
	stampLayout    = "20060102T150405.000000000Z"
)

// repair copies what reads of the damaged database at path into a new one and
// exchanges the two. Interrupted anywhere, the next Open begins again or
// finishes: until the copy is whole the damaged file stays in its place.
func repair(ctx context.Context, path string, damage error, o Options) (*Recovery, error) {
	building := path + buildingSuffix
	if err := removeDB(building); err != nil {
		return nil, fmt.Errorf("repair %s: %w", path, err)
	}
	from, err := readable(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("repair %s: %w: %w", path, ErrDamaged, err)
	}
	r, err := rebuild(ctx, from, building, o)
	if from != path {
		err = errors.Join(err, removeDB(from))
	}
	if err != nil {
		return nil, fmt.Errorf("repair %s: %w: %w", path, ErrDamaged, classify(err))
	}
	r.Cause = damage.Error()
	if err := errors.Join(os.Rename(building, path+rebuiltSuffix+stamp()), syncDir(path)); err != nil {
		return nil, fmt.Errorf("repair %s: %w", path, err)
	}
	swapped, err := finishSwap(path)
	if err != nil {
		return nil, fmt.Errorf("repair %s: %w", path, err)
	}
	r.MovedTo = swapped.MovedTo
	return r, nil
}

func stamp() string { return time.Now().UTC().Format(stampLayout) }

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

// readable gives a database with the rows of the one at path: that itself, or a
// copy with another first page if the schema is not what it was.
func readable(ctx context.Context, path string) (string, error) {
	kept, err := keptLayout(path)
	if err != nil {
		return path, nil // it was never kept, or is damaged too
	}
	if emptied(path) { // SQLite would remove its log
		return transplanted(ctx, path, kept)
	}
	old := openPool(dsn(path, "ro"))
	now, err := readLayout(ctx, old)
	if err := errors.Join(err, old.Close()); err == nil && (now.Sum == kept.Sum || now.Version > kept.Version) {
		return path, nil
	}
	return transplanted(ctx, path, kept)
}

func transplanted(ctx context.Context, path string, kept layout) (string, error) {
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
	r := &Recovery{}
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
	if r.Lost() && o.Salvage != nil {
		if err := copyRecords(ctx, from, fresh.writer, o, r.Tables); err != nil {
			return nil, errors.Join(err, fresh.Close())
		}
	}
	return r, fresh.Close()
}

func tableNames(ctx context.Context, db *sql.DB) ([]string, error) {
	return column(ctx, db,
		"SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name")
}
