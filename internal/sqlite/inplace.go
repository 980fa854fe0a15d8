package sqlite

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
)

// place is where an open database is: what is committed to files that were removed,
// or in a folder that another one has taken the place of, is not seen by who opens
// the database next.
type place struct {
	path           string
	file, log, dir syscall.Stat_t
}

// newPlace begins before the database is opened: in the folder of before, which was
// open there, unless that is nil.
func newPlace(path string, before *DB) (*place, error) {
	p := &place{path: path}
	if before != nil {
		p.dir = before.place.dir
		return p, p.here()
	}
	if err := syscall.Stat(filepath.Dir(path), &p.dir); err != nil {
		return nil, fmt.Errorf("look at the folder of %s: %w", path, err)
	}
	return p, nil
}

// here tells whether its folder is where it was.
func (p *place) here() error {
	var dir syscall.Stat_t
	if err := syscall.Stat(filepath.Dir(p.path), &dir); err == nil && same(dir, p.dir) {
		return nil
	} else if err != nil && !errors.Is(err, syscall.ENOENT) {
		return classify(fmt.Errorf("look at the folder of %s: %w", p.path, err))
	}
	return fmt.Errorf("%w: %w: that of %s", ErrDisk, ErrElsewhere, p.path)
}

// ready is for before each connection: SQLite takes whatever is there for the database,
// and removes the log of an empty file. It makes a new log where no connection is left.
func (p *place) ready() error {
	if p.file.Ino == 0 { // it is being opened
		return p.here()
	}
	var file syscall.Stat_t
	err := syscall.Stat(p.path, &file)
	if gone(err, file, p.file) {
		return p.removed(p.path)
	}
	return nil // or SQLite tells
}

// InPlace gives an error that wraps ErrElsewhere if the folder of the database is
// another one than when it was opened. It may be closed.
func (db *DB) InPlace() error { return db.place.here() }

// opened is for once it is open.
func (p *place) opened() error {
	if err := p.here(); err != nil {
		return err
	}
	return errors.Join(statOf(p.path, &p.file), statOf(p.path+"-wal", &p.log))
}

func statOf(path string, st *syscall.Stat_t) error {
	if err := syscall.Stat(path, st); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	return nil
}

// check is for before each commit. Its error wraps ErrDamaged if a file was removed,
// ErrElsewhere if the folder is another one.
func (p *place) check() error {
	var file, log syscall.Stat_t
	fileErr, logErr := syscall.Stat(p.path, &file), syscall.Stat(p.path+"-wal", &log)
	fileGone, logGone := gone(fileErr, file, p.file), gone(logErr, log, p.log)
	if !fileGone && !logGone {
		return nil // or the commit tells
	}
	if fileGone {
		return p.removed(p.path)
	}
	return p.removed("the log of " + p.path)
}

func (p *place) removed(what string) error {
	if err := p.here(); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s was removed while it was in use", ErrDamaged, what)
}

func gone(err error, now, was syscall.Stat_t) bool {
	return errors.Is(err, syscall.ENOENT) || err == nil && !same(now, was)
}

func same(a, b syscall.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }
