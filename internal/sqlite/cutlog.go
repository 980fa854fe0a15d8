package sqlite

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
)

// cutLog looks for commits that SQLite will pass over because a frame of the log
// before them is bad. What is lost is kept to be told, and the log kept aside; not
// again if that was done with the same log before. It tells whether the log is to
// be folded.
func cutLog(path string) (bool, error) {
	log := path + "-wal"
	w, err := readWAL(log)
	// One alone may be what a crash cut short.
	if err != nil || w.lost < 2 {
		return false, err
	}
	sum, err := fileSum(log)
	if err != nil {
		return false, err
	}
	earlier, err := untold(path)
	if err != nil {
		return false, err
	}
	if known, err := keptAlready(path, log, sum); known || err != nil {
		return true, err
	}
	r := earlier
	if r == nil || r.Log != sum { // else the copy is what was interrupted
		r = Recovery{MovedTo: path + damagedSuffix + stamp() + "-wal", Cause: "the log of recent changes is damaged",
			Commits: w.lost - 1, Log: sum}.add(earlier)
		if err := r.keep(path, recoverySuffix); err != nil {
			return false, err
		}
	}
	return true, copyAside(log, r.MovedTo)
}

// copyAside is durable once it returns nil, and leaves nothing behind otherwise.
func copyAside(from, to string) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	if err := errors.Join(copyInto(f, from), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return syncDir(to)
}

// keptAlready tells whether a copy of the log is among those kept aside.
func keptAlready(path, log, sum string) (bool, error) {
	info, err := os.Stat(log)
	if err != nil {
		return false, err
	}
	copies, err := damagedCopies(path)
	if err != nil {
		return false, err
	}
	for _, c := range copies {
		for _, name := range c.files {
			if kept, err := os.Stat(name); err != nil || kept.Size() != info.Size() {
				continue
			}
			if has, err := fileSum(name); err == nil && has == sum {
				return true, nil
			}
		}
	}
	return false, nil
}

func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// foldLog empties a log of which the end is bad: what is written next would leave
// some of that end in it, to be found once more.
func (db *DB) foldLog(ctx context.Context) error {
	_, err := db.writer.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}
