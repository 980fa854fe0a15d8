package sqlite

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

var sealedNotes = append(notes[:1:1], Migration{Name: "seal", SQL: Seal("notes", "n", "text")})

func openSealed(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), path, Options{Migrations: sealedNotes, Sealed: []string{"notes"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func exec(t *testing.T, db *DB, query string, args ...any) {
	t.Helper()
	err := db.Update(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, db *DB, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		exec(t, db, "INSERT INTO notes (n, text) VALUES (?, ?)", n, noteText(n))
	}
}

// flip changes one byte inside note n, in the table and in the index alike.
func flip(t *testing.T, path string, n int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := noteText(n)
	bad := strings.ReplaceAll(string(raw), text, text[:100]+"y"+text[101:])
	if bad == string(raw) {
		t.Fatalf("note %d is not in the file", n)
	}
	if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A changed byte that leaves the structure whole is found by the row's digest;
// that row is lost and counted, the others are kept.
func TestSealedRowThatChanged(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 100) // before the rows were sealed
	db := openSealed(t, path)
	put(t, db, 100, 200)
	exec(t, db, "UPDATE notes SET text = ? WHERE n = 7", noteText(1007))
	exec(t, db, "INSERT INTO notes (n, text) VALUES (8, ?) ON CONFLICT (n) DO UPDATE SET text = excluded.text", noteText(1008))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db = openSealed(t, path); db.Recovery() != nil {
		t.Fatalf("whole, yet repaired: %+v", db.Recovery())
	}
	_ = db.Close()
	for i, n := range []int{1007, 150, 50} {
		flip(t, path, n)
		db = openSealed(t, path)
		r := db.Recovery()
		if r == nil || !r.Lost() || r.Tables[0].Copied != 199-i || r.Tables[0].Missing != 1 || count(t, db) != 199-i {
			t.Errorf("note %d: %+v, %d rows", n, r, count(t, db))
		}
		if err := errors.Join(db.Told(), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// A row that is damaged already is not made good by a change to it.
func TestDamagedRowIsNotSealedAgain(t *testing.T) {
	testutil.LeakCheck(t)
	path := filepath.Join(t.TempDir(), "x.db")
	db := openSealed(t, path)
	put(t, db, 0, 10)
	exec(t, db, "DROP TRIGGER notes_reseal")
	exec(t, db, "UPDATE notes SET text = 'damage' WHERE n = 5")
	exec(t, db, strings.SplitAfter(Seal("notes", "n", "text"), "END;\n")[1])
	exec(t, db, "UPDATE notes SET n = 55 WHERE n = 5")
	_ = db.Close()
	if r := openSealed(t, path).Recovery(); r == nil || r.Tables[0].Missing != 1 {
		t.Errorf("recovery %+v", r)
	}
}

// With the first page gone, every row is found all the same.
func TestBadFirstPageLosesNothing(t *testing.T) {
	testutil.LeakCheck(t)
	for name, spoil := range map[string]func(path string) error{
		"header": func(path string) error { return patch(path, 0, []byte("not a database at all")) },
		"one byte": func(path string) error {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return patch(path, int64(strings.Index(string(raw), "text TEXT")), []byte("z"))
		},
		"schema": func(path string) error { return patch(path, 100, make([]byte, pageSize-100)) },
		"page":   func(path string) error { return patch(path, 0, make([]byte, pageSize)) },
	} {
		path := filled(t, 1000)
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		db := openAt(t, path, notes)
		if r := db.Recovery(); r == nil || r.Lost() || count(t, db) != 1000 {
			t.Errorf("%s: %+v, %d rows", name, r, count(t, db))
		}
		insert(t, db, 1000, 1001)
		for _, left := range asideOf(t, path) {
			if strings.Contains(left, salvageSuffix) {
				t.Errorf("%s: left behind: %s", name, left)
			}
		}
	}
}

func patch(path string, at int64, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.WriteAt(data, at)
	return err
}

// What lies between two bad pages is read, and what is lost is counted.
func TestRowsBetweenBadPages(t *testing.T) {
	testutil.LeakCheck(t)
	const n = 5000
	path := filled(t, n)
	for _, at := range []int{500, 2500, 4500} {
		damageLeaf(t, path, at)
	}
	db := openAt(t, path, notes)
	r := db.Recovery()
	const perPage = pageSize / 200
	if r == nil || r.Tables[0].Copied != count(t, db) || count(t, db) < n-3*perPage {
		t.Fatalf("%+v, %d rows", r, count(t, db))
	}
	if !r.Lost() || r.Tables[0].Missing != n-count(t, db) {
		t.Errorf("told %+v, %d are missing", r.Tables, n-count(t, db))
	}
	var inOrder int
	err := db.View(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRow("SELECT count(*) FROM notes WHERE text = printf('%06d', n) || substr(text, 7)").Scan(&inOrder)
	})
	if err != nil || inOrder != count(t, db) {
		t.Errorf("%d rows are as they were: %v", inOrder, err)
	}
}

// damageLeaf spoils the table's page with note n; the index stays.
func damageLeaf(t *testing.T, path string, n int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const tableLeaf = 0x0d
	for at := pageSize; at < len(raw); at += pageSize {
		if raw[at] == tableLeaf && strings.Contains(string(raw[at:at+pageSize]), noteText(n)) {
			overwrite(t, path, int64(at), make([]byte, pageSize))
			return
		}
	}
	t.Fatalf("no leaf has note %d", n)
}

// A file without content, where there was some, is a loss and told as one.
func TestEmptiedFile(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 10)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	db := openAt(t, path, notes)
	if r := db.Recovery(); r == nil || !r.Lost() || r.MovedTo == "" {
		t.Errorf("recovery %+v", r)
	}
	insert(t, db, 0, 1)
}

// Another program's database is not written into.
func TestForeignDatabase(t *testing.T) {
	testutil.LeakCheck(t)
	for _, sql := range []string{"CREATE TABLE recipes (a, b)", "CREATE TABLE notes (x)", "CREATE TABLE notes (x); PRAGMA user_version=1", "CREATE TABLE recipes (a, b); PRAGMA user_version=900"} {
		path := filled(t, 10)
		foreign := filepath.Join(t.TempDir(), "y.db")
		pool := openPool(dsn(foreign, "rwc"))
		_, err := pool.ExecContext(t.Context(), sql)
		if err == nil {
			err = pool.Close()
		}
		if err == nil {
			err = os.Rename(foreign, path)
		}
		if err != nil {
			t.Fatal(err)
		}
		db := openAt(t, path, notes)
		r := db.Recovery()
		if r == nil || !r.Lost() {
			t.Fatalf("%s: recovery %+v", sql, r)
		}
		kept := openPool(dsn(r.MovedTo, "ro"))
		tables, err := column(t.Context(), kept, "SELECT sql FROM sqlite_schema")
		if err := errors.Join(err, kept.Close()); err != nil || len(tables) != 1 || !strings.HasPrefix(sql, tables[0]) {
			t.Errorf("%s: kept with %q, %v", sql, tables, err)
		}
		insert(t, db, 0, 1)
	}
}

// A changed byte in the version of the schema does not lock the database up.
func TestChangedVersion(t *testing.T) {
	testutil.LeakCheck(t)
	for _, version := range []byte{0, 2, 0x80} {
		path := filled(t, 100)
		overwrite(t, path, 60, []byte{0, 0, 0, version}) // user_version, see the file format
		db, err := Open(t.Context(), path, Options{Migrations: notes})
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if r := db.Recovery(); r == nil || r.Lost() || count(t, db) != 100 {
			t.Errorf("version %d: %+v, %d rows", version, r, count(t, db))
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A header that says that the file is of a newer format, which may be read only.
func TestChangedWriteFormat(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 100)
	overwrite(t, path, 18, []byte{6}) // see the file format
	db := openAt(t, path, notes)
	insert(t, db, 100, 101)
	if r := db.Recovery(); r == nil || r.Lost() || count(t, db) != 101 {
		t.Errorf("%+v, %d rows", r, count(t, db))
	}
}
