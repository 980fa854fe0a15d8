package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

var notes = []Migration{{Name: "notes", SQL: "CREATE TABLE notes (n INTEGER PRIMARY KEY, text TEXT NOT NULL, UNIQUE (text))"}}

func openAt(t testing.TB, path string, steps []Migration) *DB {
	t.Helper()
	db, err := Open(t.Context(), path, Options{Migrations: steps})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func insert(t testing.TB, db *DB, from, to int) {
	t.Helper()
	err := db.Update(t.Context(), func(tx *sql.Tx) error {
		for n := from; n < to; n++ {
			if _, err := tx.Exec("INSERT INTO notes VALUES (?, ?)", n, noteText(n)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func noteText(n int) string { return fmt.Sprintf("%06d%s", n, strings.Repeat("x", 200)) }

func count(t testing.TB, db *DB) (n int) {
	t.Helper()
	err := db.View(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRow("SELECT count(*) FROM notes").Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A commit is durable only if this holds on every connection, new ones too.
func TestPragmasOnEveryConnection(t *testing.T) {
	testutil.LeakCheck(t)
	db := openAt(t, filepath.Join(t.TempDir(), "x.db"), notes)
	want := map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"}
	for name, pool := range map[string]*sql.DB{"writer": db.writer, "readers": db.readers, "lookers": db.lookers} {
		for range 2 { // the second time with new connections
			conns := make([]*sql.Conn, pool.Stats().MaxOpenConnections)
			for i := range conns {
				c, err := pool.Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				conns[i] = c
				for pragma, value := range want {
					var got string
					if err := c.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != value {
						t.Errorf("%s: %s is %q (%v), want %q", name, pragma, got, err, value)
					}
				}
			}
			for _, c := range conns {
				_ = c.Raw(func(any) error { return errors.New("drop") })
				_ = c.Close()
			}
			pool.SetMaxIdleConns(0)
		}
	}
}

func TestReadersNeitherWriteNorWait(t *testing.T) {
	testutil.LeakCheck(t)
	db := openAt(t, filepath.Join(t.TempDir(), "x.db"), notes)
	err := db.View(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO notes VALUES (1, 'x')")
		return err
	})
	if err == nil {
		t.Error("a View wrote")
	}
	err = db.Update(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.Exec("INSERT INTO notes VALUES (1, 'x')"); err != nil {
			return err
		}
		if n := count(t, db); n != 0 {
			t.Errorf("a View beside it sees %d rows that are not committed", n)
		}
		return nil
	})
	if err != nil || count(t, db) != 1 {
		t.Errorf("%v, %d rows", err, count(t, db))
	}
}

func TestFailedUpdateChangesNothing(t *testing.T) {
	testutil.LeakCheck(t)
	db := openAt(t, filepath.Join(t.TempDir(), "x.db"), notes)
	put := func(tx *sql.Tx) {
		if _, err := tx.Exec("INSERT INTO notes VALUES (1, 'x')"); err != nil {
			t.Fatal(err)
		}
	}
	mine := errors.New("mine")
	if err := db.Update(t.Context(), func(tx *sql.Tx) error { put(tx); return mine }); !errors.Is(err, mine) {
		t.Errorf("got %v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = db.Update(t.Context(), func(tx *sql.Tx) error { put(tx); panic("oh") })
	}()
	ctx, cancel := context.WithCancel(t.Context())
	if err := db.Update(ctx, func(tx *sql.Tx) error { put(tx); cancel(); return nil }); err == nil {
		t.Error("a cancelled Update committed")
	}
	if n := count(t, db); n != 0 {
		t.Errorf("%d rows were kept", n)
	}
	insert(t, db, 1, 2) // the writer is free again
}

func TestMigrations(t *testing.T) {
	testutil.LeakCheck(t)
	path := filepath.Join(t.TempDir(), "x.db")
	db := openAt(t, path, notes)
	insert(t, db, 0, 3)
	_ = db.Close()

	two := append(notes[:1:1], Migration{Name: "more", SQL: "ALTER TABLE notes ADD COLUMN more TEXT; CREATE TABLE other (x)"})
	db = openAt(t, path, two)
	if n := count(t, db); n != 3 {
		t.Errorf("%d rows after the migration", n)
	}
	_ = db.Close()
	openAt(t, path, two).Close() // once more does nothing

	if _, err := Open(t.Context(), path, Options{Migrations: notes}); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer schema: %v", err)
	}
	bad := append(two[:2:2], Migration{Name: "bad", SQL: "CREATE TABLE third (x); CREATE TABLE other (x)"})
	if _, err := Open(t.Context(), path, Options{Migrations: bad}); err == nil || !strings.Contains(err.Error(), "migration 3 (bad)") {
		t.Errorf("a failing migration: %v", err)
	}
	db = openAt(t, path, two) // the failed one left nothing behind
	if names, err := tableNames(t.Context(), db.writer); err != nil || strings.Join(names, " ") != "notes other" {
		t.Errorf("tables %v, %v", names, err)
	}
}

func TestFileModes(t *testing.T) {
	testutil.LeakCheck(t)
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "odd ?#%41.db")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	db := openAt(t, path, notes)
	insert(t, db, 0, 1)
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 || !strings.HasPrefix(f.Name(), "odd ?#%41.db") {
			t.Errorf("%s: %v %v", f.Name(), info.Mode(), err)
		}
	}
	_ = db.Close()
	if _, err := os.Stat(path + "-wal"); !os.IsNotExist(err) {
		t.Errorf("Close left the log: %v", err)
	}
}

func TestUnsafeFiles(t *testing.T) {
	testutil.LeakCheck(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(path("real"), nil, 0o600))
	must(os.Symlink(path("real"), path("link")))
	must(syscall.Mkfifo(path("fifo"), 0o600))
	for _, name := range []string{"link", "fifo"} {
		if _, err := Open(t.Context(), path(name), Options{}); !errors.Is(err, ErrUnsafeFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(os.Mkdir(path("dir"), 0o700))
	if _, err := Open(t.Context(), path("dir"), Options{}); err == nil {
		t.Error("a folder was opened")
	}
	if _, err := Open(t.Context(), path("absent/x.db"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such folder: %v", err)
	}
}
