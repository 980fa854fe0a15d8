package sqlite

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// killed gives a copy of a database as a killed process leaves it: n notes in its
// log, half of them written through a Batch.
func killed(t *testing.T, n int) string {
	t.Helper()
	from, path := filepath.Join(t.TempDir(), "x.db"), filepath.Join(t.TempDir(), "x.db")
	db := openAt(t, from, notes)
	batch := db.NewBatch(BatchHooks{})
	for i := range n / 2 {
		insert(t, db, i, i+1)
		must(t, batch.Do(t.Context(), putNote(n/2+i)))
	}
	copyDB(t, from, path)
	return path
}

// SQLite says nothing about a log that is gone or ends early; this does.
func TestLogThatIsShorter(t *testing.T) {
	testutil.LeakCheck(t)
	const n = 20
	for name, c := range map[string]struct {
		lose func(log string) error
		told bool
	}{
		"whole":   {func(string) error { return nil }, false},
		"missing": {os.Remove, true},
		"emptied": {func(log string) error { return os.Truncate(log, 0) }, true},
		"half": {func(log string) error {
			info, err := os.Stat(log)
			return errors.Join(err, os.Truncate(log, info.Size()/2))
		}, true},
		"its last frame": {func(log string) error {
			info, err := os.Stat(log)
			return errors.Join(err, os.Truncate(log, info.Size()-frameHeaderSize-pageSize))
		}, true},
		"what a crash added": {func(log string) error {
			f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = f.Write(make([]byte, 100))
			return errors.Join(err, f.Close())
		}, false},
		"no mark, as after a power cut": {func(log string) error { return os.Truncate(log[:len(log)-len("-wal")]+markSuffix, 0) }, false},
	} {
		path := killed(t, n)
		must(t, c.lose(path+"-wal"))
		for range 2 { // until somebody was told
			db := openAt(t, path, notes)
			r := db.Recovery()
			if told := r != nil && r.LogLost && r.Lost(); told != c.told {
				t.Fatalf("%s: %+v", name, r)
			}
			if got := count(t, db); !c.told && got != n {
				t.Errorf("%s: %d of %d rows", name, got, n)
			}
			must(t, db.Close())
		}
		db := openAt(t, path, notes)
		must(t, errors.Join(db.Told(), db.Close()))
		if _, err := os.Lstat(path + markSuffix); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the mark of a closed database is there: %v", name, err)
		}
		if r := openAt(t, path, notes).Recovery(); r != nil {
			t.Errorf("%s: told, and told again: %+v", name, r)
		}
	}
}

// A log that was folded and is written from its beginning again is not shorter.
func TestLogThatIsFoldedIsNotShorter(t *testing.T) {
	testutil.LeakCheck(t)
	from, path := filepath.Join(t.TempDir(), "x.db"), filepath.Join(t.TempDir(), "x.db")
	db := openAt(t, from, notes)
	insert(t, db, 0, 500)
	if _, err := db.writer.ExecContext(t.Context(), "PRAGMA wal_checkpoint(RESTART)"); err != nil {
		t.Fatal(err)
	}
	insert(t, db, 500, 501)
	copyDB(t, from, path)
	db = openAt(t, path, notes)
	if r := db.Recovery(); r != nil || count(t, db) != 501 {
		t.Errorf("%+v, %d rows", r, count(t, db))
	}
}
