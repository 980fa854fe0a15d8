package main

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver that fastnd uses
)

// disk is what can be had at best where the daemons keep their messages.
type disk struct {
	dir string
	f   *os.File
	db  *sql.DB
	one *sql.Stmt // inserts a row

	written int // pages of f
}

func newDisk() (*disk, error) {
	dir, err := os.MkdirTemp("", "fastn-bench")
	if err != nil {
		return nil, err
	}
	d := &disk{dir: dir}
	if d.f, err = os.Create(filepath.Join(dir, "file")); err == nil {
		d.db, err = sql.Open("sqlite", filepath.Join(dir, "db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	}
	if err == nil {
		d.db.SetMaxOpenConns(1)
		_, err = d.db.Exec("CREATE TABLE m (seq INTEGER PRIMARY KEY, id TEXT, data BLOB)")
	}
	if err == nil {
		d.one, err = d.db.Prepare("INSERT INTO m (id, data) VALUES (?, ?)")
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *disk) Close() error {
	var errs []error
	if d.f != nil {
		errs = append(errs, d.f.Close())
	}
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// sync writes and syncs a page behind the last one, over and over, as a log is
// written that begins anew now and then.
func (d *disk) sync() error {
	const pages = 256
	page := make([]byte, 4<<10)
	d.written++
	if _, err := d.f.WriteAt(page, int64(d.written%pages)*int64(len(page))); err != nil {
		return err
	}
	return unix.Fdatasync(int(d.f.Fd()))
}

// insert has a bare database take rows in one commit.
func (d *disk) insert(rows int) error {
	tx, err := d.db.Begin()
	if err != nil {
		return err
	}
	insert := tx.Stmt(d.one)
	for range rows {
		if _, err := insert.Exec("123e4567-e89b-42d3-a456-426614174000", []byte(text)); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

// inserts is how many rows a second a bare database takes, so many a commit.
func (d *disk) inserts(rows int, long time.Duration) (float64, error) {
	n, err := often(long, func() error { return d.insert(rows) })
	return n * float64(rows), err
}
