package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// schemaSuffix is of a file beside the database that says where its tables begin.
// A database tells that on its first page; with that one bad every row would be
// lost, though all other pages are whole.
const schemaSuffix = ".schema"

// layout is what that file holds.
type layout struct {
	Version  int      `json:"version"`
	PageSize int      `json:"page_size"`
	Objects  []object `json:"objects"`
	Sum      string   `json:"sum"` // SHA-256 of the rest
}

// object is a table or an index, as in sqlite_schema.
type object struct {
	Type, Name, Table string
	Root              int
	SQL               sql.NullString
}

func (l layout) sum() string {
	l.Sum = ""
	b, err := json.Marshal(l)
	if err != nil { // of strings and numbers
		panic("sqlite: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func readLayout(ctx context.Context, db *sql.DB) (layout, error) {
	var l layout
	var err error
	if l.Version, err = schemaVersion(ctx, db); err != nil {
		return l, err
	}
	if err := db.QueryRowContext(ctx, "PRAGMA page_size").Scan(&l.PageSize); err != nil {
		return l, err
	}
	rows, err := db.QueryContext(ctx, "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema WHERE type IN ('table','index') ORDER BY rowid")
	if err != nil {
		return l, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var o object
		if err := rows.Scan(&o.Type, &o.Name, &o.Table, &o.Root, &o.SQL); err != nil {
			return l, err
		}
		l.Objects = append(l.Objects, o)
	}
	l.Sum = l.sum()
	return l, rows.Err()
}

// keepLayout writes it beside the database unless it is there already. Without
// it a repair only brings back less, so that it may fail.
func keepLayout(ctx context.Context, db *sql.DB, path string) error {
	l, err := readLayout(ctx, db)
	if err != nil {
		return err
	}
	if old, err := keptLayout(path); err == nil && old.Sum == l.Sum {
		return nil
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return writeFile(path+schemaSuffix, b)
}

func keptLayout(path string) (layout, error) {
	var l layout
	b, err := os.ReadFile(path + schemaSuffix)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, err
	}
	if l.Sum != l.sum() {
		return l, fmt.Errorf("%s: wrong checksum", path+schemaSuffix)
	}
	return l, nil
}

// transplant makes at to a copy of the database at from, with its log folded in,
// whose first page says what l says. It is for reading only.
func transplant(ctx context.Context, from, to string, l layout) error {
	w, err := readWAL(from + "-wal")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	err = copyInto(f, from)
	if err == nil && w.pageSize == l.PageSize {
		err = w.fold(from+"-wal", f)
	}
	if err == nil {
		err = firstPage(ctx, f, l.PageSize)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	db := openPool(dsn(to, "rw", "writable_schema(1)"))
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	return transact(ctx, db, false, func(tx *sql.Tx) error {
		for _, o := range l.Objects {
			_, err := tx.ExecContext(ctx, "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES (?, ?, ?, ?, ?)",
				o.Type, o.Name, o.Table, o.Root, o.SQL)
			if err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version=%d", l.Version))
		return err
	})
}

func copyInto(f *os.File, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	_, err = io.Copy(f, src)
	return err
}

// firstPage puts that of an empty database, of as many pages as the file has, in
// place of the first one.
func firstPage(ctx context.Context, f *os.File, pageSize int) error {
	empty := f.Name() + ".empty"
	defer func() { _ = removeDB(empty) }()
	db := openPool(dsn(empty, "rwc", fmt.Sprintf("page_size(%d)", pageSize)))
	_, err := db.ExecContext(ctx, "PRAGMA user_version=1") // else there is no page
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	page, err := os.ReadFile(empty)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	const pagesAt = 28 // see the file format's table of the header
	pages := max(1, info.Size()/int64(pageSize))
	binary.BigEndian.PutUint32(page[pagesAt:], uint32(pages))
	_, err = f.WriteAt(page[:pageSize], 0)
	return errors.Join(err, f.Truncate(pages*int64(pageSize)))
}
