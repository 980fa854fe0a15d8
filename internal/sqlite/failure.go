package sqlite

import (
	"errors"
	"fmt"
	"syscall"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// IsFull tells whether err means that no room is left on the disk.
func IsFull(err error) bool {
	if errors.Is(err, syscall.ENOSPC) {
		return true
	}
	e, ok := errors.AsType[*driver.Error](err)
	return ok && e.Code()&0xff == lib.SQLITE_FULL
}

// FileError names the database whose file is damaged and could not be repaired, or has
// something else in its place.
type FileError struct {
	Path string
	Err  error
}

func (e *FileError) Error() string { return e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }

// damagedFile names path in an error that means that its content is bad.
func damagedFile(path string, err error) error {
	if errors.Is(err, ErrDamaged) {
		return &FileError{path, err}
	}
	return err
}

// fault names the database's file in an error that means that its content is bad. What
// SQLite refused is that, too, if the file was removed while it is open.
func (db *DB) fault(err error) error {
	if _, ok := errors.AsType[*driver.Error](err); ok && !errors.Is(err, ErrDamaged) {
		if removed := db.place.check(); errors.Is(removed, ErrDamaged) {
			err = fmt.Errorf("%w: %v", removed, err) // %v: it is no fault of the disk
		}
	}
	return damagedFile(db.path, err)
}
