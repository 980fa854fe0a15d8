package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// A transaction lives until its function returns, also if its context ends before:
// database/sql would close the connection beneath a statement that is just being
// prepared, and to close that one then crashed.
func TestTransactionOutlivesItsContext(t *testing.T) {
	testutil.LeakCheck(t)
	db := openAt(t, filepath.Join(t.TempDir(), "a.db"), notes)
	insert(t, db, 0, 10)
	for name, transaction := range map[string]func(context.Context, func(tx *sql.Tx) error) error{"View": db.View, "Update": db.Update} {
		ctx, cancel := context.WithCancel(t.Context())
		err := transaction(ctx, func(tx *sql.Tx) error {
			cancel()
			for range 1000 { // so that whoever watches ctx has the time to act
				s, err := tx.PrepareContext(t.Context(), "SELECT text FROM notes WHERE n = ?")
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				var text string
				if err := errors.Join(s.QueryRow(3).Scan(&text), s.Close()); err != nil || text != noteText(3) {
					t.Fatalf("%s: %q, %v", name, text, err)
				}
			}
			if name == "Update" {
				if _, err := tx.Exec("DELETE FROM notes"); err != nil {
					t.Fatal(err)
				}
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if err := transaction(ctx, func(*sql.Tx) error { t.Error("it ran"); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, when the time was over before: %v", name, err)
		}
	}
	count := 0
	err := db.View(t.Context(), func(tx *sql.Tx) error { return tx.QueryRow("SELECT count(*) FROM notes").Scan(&count) })
	if err != nil || count != 10 {
		t.Errorf("%d are left, %v", count, err)
	}
}

// Who waits for the lock of another writer waits no longer than its context.
func TestBeginEndsWithItsContext(t *testing.T) {
	testutil.LeakCheck(t)
	path := filepath.Join(t.TempDir(), "a.db")
	db := openAt(t, path, notes)
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	lock, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := lock.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = db.Update(ctx, func(*sql.Tx) error { t.Error("it ran"); return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 4*time.Second { // SQLite itself gives up after 5 s
		t.Errorf("it took %v", took)
	}
	if _, err := lock.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	insert(t, db, 0, 1)
}
