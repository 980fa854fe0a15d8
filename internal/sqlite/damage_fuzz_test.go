package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// FuzzDamagedFile overwrites a part of a database and cuts its end: it opens in
// any case, what it has can be read or is told to be damaged, and a database
// that was opened anew takes and keeps rows.
func FuzzDamagedFile(f *testing.F) {
	const rows = 40
	db, err := Open(f.Context(), filepath.Join(f.TempDir(), "x.db"), Options{Migrations: notes})
	if err != nil {
		f.Fatal(err)
	}
	insert(f, db, 0, rows)
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(db.Path())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, uint16(0), uint16(0))
	f.Add([]byte("not a database"), uint16(0), uint16(0))
	f.Add(make([]byte, 100), uint16(pageSize), uint16(0))
	f.Add([]byte{0xff, 0xff}, uint16(28), uint16(0))               // pages in the file
	f.Add([]byte{0, 99}, uint16(60), uint16(0))                    // schema version
	f.Add([]byte{}, uint16(0), uint16(2*pageSize+1))               // cut off
	f.Add([]byte{13, 0, 0, 0, 200}, uint16(2*pageSize), uint16(0)) // cells of a leaf
	f.Fuzz(func(t *testing.T, with []byte, at, cut uint16) {
		raw := append([]byte{}, whole[:len(whole)-int(cut)%len(whole)]...)
		copy(raw[min(int(at), len(raw)):], with)
		path := filepath.Join(t.TempDir(), "x.db")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		// The second time is a start after damage that showed only in use.
		for n := range 2 {
			db, err := Open(t.Context(), path, Options{Migrations: notes})
			if errors.Is(err, ErrNewer) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			err = use(t, db, rows+n)
			if cerr := db.Close(); cerr != nil && err == nil {
				t.Error(cerr)
			}
			if err == nil {
				return
			}
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
		}
	})
}

// use reads all rows, adds one, and finds it.
func use(t *testing.T, db *DB, n int) error {
	err := db.View(t.Context(), func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(t.Context(), "SELECT n, text FROM notes")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var n, text any
			if err := rows.Scan(&n, &text); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	added := fmt.Sprintf("added %d", n)
	err = db.Update(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT OR REPLACE INTO notes VALUES (?, ?)", n, added)
		return err
	})
	if err != nil {
		return err
	}
	return db.View(t.Context(), func(tx *sql.Tx) error {
		var got string
		if err := tx.QueryRow("SELECT text FROM notes WHERE n = ?", n).Scan(&got); err != nil {
			return err
		}
		if got != added {
			t.Errorf("%q was kept as %q", added, got)
		}
		return nil
	})
}
