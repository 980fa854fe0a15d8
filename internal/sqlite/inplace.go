package sqlite

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
)

// place is where an open database is: what is committed to a file that was removed
// is gone when it is closed.
type place struct {
	path      string
	file, dir syscall.Stat_t
}

// newPlace begins before the database is opened. It gives nil if it cannot be told.
func newPlace(path string) *place {
	p := &place{path: path}
	if syscall.Stat(filepath.Dir(path), &p.dir) != nil {
		return nil
	}
	return p
}

// opened is for once it is open; its error wraps ErrDisk if another disk came there
// meanwhile. p may be nil.
func (p *place) opened() error {
	var dir syscall.Stat_t
	if p == nil {
		return nil
	}
	if syscall.Stat(p.path, &p.file) != nil || syscall.Stat(filepath.Dir(p.path), &dir) != nil || !same(dir, p.dir) {
		return fmt.Errorf("%w: the folder of %s became another one", ErrDisk, p.path)
	}
	return nil
}

// check is for before each commit; its error wraps ErrDamaged if the file was removed,
// ErrDisk if another disk with such a file is in the place of its own: what would be
// committed then is not seen by who opens the database next. A folder that is another
// one without such a file is no reason: the disk was taken away, and the file is as it
// was. p may be nil.
func (p *place) check() error {
	if p == nil {
		return nil
	}
	var now, dir syscall.Stat_t
	err := syscall.Stat(p.path, &now)
	switch {
	case err == nil && same(now, p.file):
		return nil
	case err != nil && !errors.Is(err, syscall.ENOENT):
		return nil // the commit tells
	case syscall.Stat(filepath.Dir(p.path), &dir) != nil:
		return nil
	case same(dir, p.dir):
		return fmt.Errorf("%w: %s was removed while it was in use", ErrDamaged, p.path)
	case err == nil:
		return fmt.Errorf("%w: another disk has taken the place of that of %s", ErrDisk, p.path)
	}
	return nil
}

func same(a, b syscall.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }
