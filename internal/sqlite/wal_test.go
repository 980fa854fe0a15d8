package sqlite

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// crashed gives a database as a killed process leaves it: with its log, in which
// each of n notes was committed on its own.
func crashed(t *testing.T, n int) string {
	t.Helper()
	from := filepath.Join(t.TempDir(), "x.db")
	db := openAt(t, from, notes)
	for i := range n {
		insert(t, db, i, i+1)
	}
	path := filepath.Join(t.TempDir(), "x.db")
	for _, part := range []string{"", "-wal", schemaSuffix} {
		raw, err := os.ReadFile(from + part)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+part, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// Commits behind a bad frame are gone; that is told, and the log is kept.
func TestDamagedLog(t *testing.T) {
	testutil.LeakCheck(t)
	const n = 30
	const frame = frameHeaderSize + pageSize
	for name, c := range map[string]struct {
		at   func(size int64) int64 // -1: nothing is spoilt
		told bool
	}{
		"whole":       {func(int64) int64 { return -1 }, false},
		"header":      {func(int64) int64 { return 17 }, true},
		"first frame": {func(int64) int64 { return walHeaderSize + 100 }, true},
		"middle":      {func(size int64) int64 { return walHeaderSize + (size/frame/2)*frame + 2000 }, true},
		"a salt":      {func(size int64) int64 { return walHeaderSize + (size/frame/2)*frame + 9 }, true},
		// This may be a commit that a crash cut short and nobody was told of.
		"last frame": {func(size int64) int64 { return size - 100 }, false},
	} {
		path := crashed(t, n)
		log, err := os.ReadFile(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		if at := c.at(int64(len(log))); at >= 0 {
			log[at] ^= 0x40
			overwrite(t, path+"-wal", at, log[at:at+1])
		}
		db := openAt(t, path, notes)
		r := db.Recovery()
		if told := r != nil && r.Commits > 0 && r.Lost(); told != c.told {
			t.Fatalf("%s: recovery %+v", name, r)
		}
		if !c.told {
			continue
		}
		got := n
		if name == "middle" || name == "a salt" {
			got = count(t, db)
			insert(t, db, n, n+1)
		}
		if lost := n - got; lost > 0 && (r.Commits < lost-2 || r.Commits > lost) {
			t.Errorf("%s: %d of %d are left, told %+v", name, got, n, r)
		}
		if kept, err := os.ReadFile(r.MovedTo); r.Tables == nil && (err != nil || string(kept) != string(log)) {
			t.Errorf("%s: the log was not kept as it was: %v", name, err)
		}
	}
}

// A log whose database file was emptied still has what is in it.
func TestLogOfAnEmptiedFile(t *testing.T) {
	testutil.LeakCheck(t)
	path := crashed(t, 30)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	db := openAt(t, path, notes)
	if r := db.Recovery(); r == nil || count(t, db) != 30 {
		t.Errorf("%+v, %d rows", r, count(t, db))
	}
}
