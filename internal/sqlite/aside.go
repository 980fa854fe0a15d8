package sqlite

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// damagedKept bounds how many damaged files are kept aside.
	damagedKept = 4
	// damagedBytes is how large those are together that are neither the first nor
	// the newest, at most. These two are kept however large they are.
	damagedBytes = 256 << 20
)

// damagedCopy is what one repair moved aside.
type damagedCopy struct {
	stamp string
	files []string // the database, its log, or both
	size  int64
}

// damagedCopies lists those of the database at path, oldest first.
func damagedCopies(path string) ([]damagedCopy, error) {
	names, err := filepath.Glob(globEscape(path+damagedSuffix) + "*")
	if err != nil {
		return nil, err
	}
	var list []damagedCopy
	for _, name := range names {
		stamp := strings.TrimSuffix(strings.TrimPrefix(name, path+damagedSuffix), "-wal")
		if _, err := time.Parse(stampLayout, stamp); err != nil {
			continue // somebody else's
		}
		i := slices.IndexFunc(list, func(c damagedCopy) bool { return c.stamp == stamp })
		if i < 0 {
			i = len(list)
			list = append(list, damagedCopy{stamp: stamp})
		}
		list[i].files = append(list[i].files, name)
		if info, err := os.Lstat(name); err == nil {
			list[i].size += info.Size()
		}
	}
	slices.SortFunc(list, func(a, b damagedCopy) int { return cmp.Compare(a.stamp, b.stamp) })
	return list, nil
}

// pruneDamaged keeps the first copy, from before any repair, and the newest: a
// disk that goes on damaging the file must not be filled as well.
func pruneDamaged(path string) error {
	list, err := damagedCopies(path)
	if err != nil || len(list) <= 2 {
		return err
	}
	middle := list[1 : len(list)-1]
	var errs []error
	left, room := damagedKept-2, int64(damagedBytes)
	for _, c := range slices.Backward(middle) {
		if left--; left >= 0 && c.size <= room {
			room -= c.size
			continue
		}
		left = 0 // none that is older than one removed
		for _, name := range c.files {
			errs = append(errs, os.Remove(name))
		}
	}
	return errors.Join(errs...)
}
