package sqlite

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

const pageSize = 4096

// filled makes a closed database with n notes.
func filled(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	db := openAt(t, path, notes)
	insert(t, db, 0, n)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func overwrite(t *testing.T, path string, offset int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data, offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// damageMiddle spoils the page in which a note lies, whole.
func damageMiddle(t *testing.T, path string, n int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Its text stands in the table and in the index: the table's row has the
	// text alone, the index has a number behind it. Both may be hit.
	at := strings.Index(string(raw), noteText(n))
	if at < pageSize {
		t.Fatalf("note %d is at %d", n, at)
	}
	overwrite(t, path, int64(at/pageSize*pageSize), make([]byte, pageSize))
}

func asideOf(t *testing.T, path string) []string {
	t.Helper()
	names, err := filepath.Glob(path + ".*")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestDamagedPageLosesOnlyItsRows(t *testing.T) {
	testutil.LeakCheck(t)
	const n = 2000
	path := filled(t, n)
	damageMiddle(t, path, n/2)
	damaged, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	db := openAt(t, path, notes)
	r := db.Recovery()
	if r == nil || len(r.Tables) != 1 || r.Tables[0].Name != "notes" || r.Cause == "" {
		t.Fatalf("recovery %+v", r)
	}
	got := count(t, db)
	if got != r.Tables[0].Copied || got < n-2*pageSize/200 || got >= n || !r.Lost() {
		t.Errorf("%d of %d rows are left; told %+v", got, n, r.Tables)
	}
	if kept, err := os.ReadFile(r.MovedTo); err != nil || string(kept) != string(damaged) {
		t.Errorf("the damaged file was not kept as it was: %v", err)
	}
	if info, err := os.Stat(r.MovedTo); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	insert(t, db, n, n+10)
	if err := errors.Join(db.Told(), db.Close()); err != nil {
		t.Fatal(err)
	}
	db = openAt(t, path, notes)
	if db.Recovery() != nil || count(t, db) != got+10 {
		t.Errorf("the repaired file: %+v, %d rows", db.Recovery(), count(t, db))
	}
	for _, name := range asideOf(t, path) {
		if !strings.HasPrefix(name, r.MovedTo) && name != path+schemaSuffix && name != path+markSuffix {
			t.Errorf("left behind: %s", name)
		}
	}
}

// The first page tells where the tables are: without it, and without a note of
// that elsewhere, nothing can be found.
func TestBadFirstPageGivesAnEmptyDatabase(t *testing.T) {
	testutil.LeakCheck(t)
	for name, garbage := range map[string][]byte{
		"header": []byte("not a database at all"),
		"schema": nil,
	} {
		path := filled(t, 100)
		if err := os.Remove(path + schemaSuffix); err != nil {
			t.Fatal(err)
		}
		if garbage != nil {
			overwrite(t, path, 0, garbage)
		} else {
			overwrite(t, path, 100, make([]byte, pageSize-100))
		}
		db := openAt(t, path, notes)
		if r := db.Recovery(); r == nil || !r.Lost() || count(t, db) != 0 {
			t.Errorf("%s: %+v, %d rows", name, db.Recovery(), count(t, db))
		}
		insert(t, db, 0, 1)
	}
}

// What was committed but not yet folded into the file is rescued too.
func TestRepairReadsTheLog(t *testing.T) {
	testutil.LeakCheck(t)
	const n = 400
	from := filepath.Join(t.TempDir(), "x.db")
	db := openAt(t, from, notes)
	insert(t, db, 0, n)
	if _, err := db.writer.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	insert(t, db, n, n+5) // in the log only
	path := filepath.Join(t.TempDir(), "x.db")
	for _, part := range []string{"", "-wal"} {
		raw, err := os.ReadFile(from + part)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+part, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damageMiddle(t, path, n/2)

	again := openAt(t, path, notes)
	if again.Recovery() == nil {
		t.Fatal("the damage was not noticed")
	}
	var late int
	err := again.View(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRow("SELECT count(*) FROM notes WHERE n >= ?", n).Scan(&late)
	})
	if err != nil || late != 5 {
		t.Errorf("%d of 5 rows of the log: %v", late, err)
	}
	if _, err := os.Stat(again.Recovery().MovedTo + "-wal"); err != nil {
		t.Error(err)
	}
}

// A crash between the steps of the exchange loses nothing.
func TestInterruptedSwap(t *testing.T) {
	testutil.LeakCheck(t)
	const stamp = "20260102T030405.000000000Z"
	for name, crash := range map[string]func(path string) error{
		"before it": func(string) error { return nil },
		"log moved": func(path string) error { return os.Rename(path+"-wal", path+damagedSuffix+stamp+"-wal") },
		"both moved": func(path string) error {
			return errors.Join(os.Rename(path+"-wal", path+damagedSuffix+stamp+"-wal"), os.Rename(path, path+damagedSuffix+stamp))
		},
	} {
		rebuilt := filled(t, 7)
		path := filepath.Join(t.TempDir(), "[x]*.db")
		for _, err := range []error{
			os.Rename(rebuilt, path+rebuiltSuffix+stamp),
			os.WriteFile(path, []byte("damaged"), 0o600),
			os.WriteFile(path+"-wal", []byte("log"), 0o600),
			os.WriteFile(path+"-shm", []byte("index"), 0o600),
			crash(path),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		db := openAt(t, path, notes)
		if n := count(t, db); n != 7 {
			t.Errorf("%s: %d rows", name, n)
		}
		r := db.Recovery()
		if r == nil || r.MovedTo != path+damagedSuffix+stamp {
			t.Fatalf("%s: %+v", name, r)
		}
		for part, want := range map[string]string{"": "damaged", "-wal": "log"} {
			if got, err := os.ReadFile(r.MovedTo + part); err != nil || string(got) != want {
				t.Errorf("%s: %q %v", name+part, got, err)
			}
		}
	}
}

// One interrupted while the copy was made begins again.
func TestInterruptedCopy(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 500)
	damageMiddle(t, path, 250)
	if err := os.WriteFile(path+buildingSuffix, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if db := openAt(t, path, notes); count(t, db) < 400 {
		t.Errorf("%d rows", count(t, db))
	}
}

func TestDamagedAndNewerIsLeftAlone(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 500)
	damageMiddle(t, path, 250)
	_, err := Open(t.Context(), path, Options{})
	if !errors.Is(err, ErrNewer) {
		t.Errorf("got %v", err)
	}
	if names := asideOf(t, path); len(names) != 1 || names[0] != path+schemaSuffix {
		t.Errorf("moved: %v", names)
	}
}

// Damage that shows only while the database is in use is told as such.
func TestDamageWhileOpen(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 2000)
	db := openAt(t, path, notes)
	damageMiddle(t, path, 1000)
	err := db.View(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRow("SELECT sum(length(text)) FROM notes NOT INDEXED").Scan(new(int))
	})
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

// An empty blob is something else than nothing.
func TestRepairKeepsEmptyBlobs(t *testing.T) {
	testutil.LeakCheck(t)
	steps := append(slices.Clone(notes), Migration{Name: "blobs", SQL: "CREATE TABLE blobs (b BLOB NOT NULL, other BLOB)"})
	path := filepath.Join(t.TempDir(), "x.db")
	db := openAt(t, path, steps)
	insert(t, db, 0, 500)
	err := db.Update(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO blobs VALUES (x'', NULL)")
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	damageMiddle(t, path, 250)
	db = openAt(t, path, steps)
	var n int
	err = db.View(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRow("SELECT count(*) FROM blobs WHERE b = x'' AND other IS NULL").Scan(&n)
	})
	if db.Recovery() == nil || err != nil || n != 1 {
		t.Errorf("%+v; %d rows, %v", db.Recovery(), n, err)
	}
}
