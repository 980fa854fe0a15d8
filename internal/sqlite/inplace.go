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

// newPlace gives nil if it cannot be told.
func newPlace(path string) *place {
	p := &place{path: path}
	if syscall.Stat(path, &p.file) != nil || syscall.Stat(filepath.Dir(path), &p.dir) != nil {
		return nil
	}
	return p
}

// check is for before each commit; its error wraps ErrDamaged. A folder that is
// another one is no reason: its disk was taken away, and the file is as it was. p
// may be nil.
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
	case syscall.Stat(filepath.Dir(p.path), &dir) != nil || !same(dir, p.dir):
		return nil
	}
	return fmt.Errorf("%w: %s was removed while it was in use", ErrDamaged, p.path)
}

func same(a, b syscall.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }
