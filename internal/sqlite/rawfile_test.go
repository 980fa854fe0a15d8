package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// The reader without SQLite sees what SQLite sees: rows of all sizes, in file and log.
func TestRawRows(t *testing.T) {
	testutil.LeakCheck(t)
	path := filepath.Join(t.TempDir(), "x.db")
	db := openAt(t, path, []Migration{{Name: "t", SQL: "CREATE TABLE t (n INTEGER PRIMARY KEY, a, b, c)"}})
	want := map[string]bool{}
	add := func(n int64, values ...any) {
		t.Helper()
		want[fmt.Sprintf("%v %q", n, values)] = true
		if _, err := db.writer.Exec("INSERT INTO t VALUES (?, ?, ?, ?)", append([]any{n}, values...)...); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range []int64{0, 1, -1, 127, -128, 1 << 15, -1 << 23, 1 << 31, 1 << 40, -1 << 47, 1<<63 - 1, -1 << 63} {
		add(n, int64(i), 0.5*float64(n), nil)
	}
	for i, size := range []int{0, 1, 57, 500, 4050, 4060, 4061, 4062, 4096, 8150, 9000, 100_000} {
		add(int64(1000+i), strings.Repeat("x", size), bytes.Repeat([]byte{byte(i)}, size), int64(size))
		if i == 6 {
			if _, err := db.writer.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := map[string]bool{}
	read(t, path, func(rowid int64, row []any) {
		if len(row) == 4 {
			got[fmt.Sprintf("%v %q", rowid, row[1:])] = true
		}
	})
	for w := range want {
		if !got[w] {
			t.Errorf("missing: %.80s", w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
}

func read(t testing.TB, path string, each func(rowid int64, row []any)) {
	t.Helper()
	r, done, err := openRaw(path)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if err := r.rows(func(rowid int64, row []any) error { each(rowid, row); return nil }); err != nil {
		t.Fatal(err)
	}
}

// claim knows notes again by what stands in them.
func claim(rowid int64, row []any) (string, []any, bool) {
	if len(row) == 2 && row[0] == nil && row[1] == noteText(int(rowid)) {
		return "notes", []any{rowid, row[1]}, true
	}
	return "", nil, false
}

// Without a schema, or without a table's root, its rows are found nevertheless.
func TestSalvage(t *testing.T) {
	testutil.LeakCheck(t)
	const n = 3000
	for name, damage := range map[string]func(path string){
		"header": func(path string) { overwrite(t, path, 0, []byte("not a database at all")) },
		"page 1": func(path string) { overwrite(t, path, 0, make([]byte, pageSize)) },
		"root":   func(path string) { overwrite(t, path, pageSize, make([]byte, pageSize)) },
		"schema": func(path string) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, path, int64(bytes.Index(raw, []byte("CREATE TABLE notes"))), []byte("CREAXE"))
		},
	} {
		path := filled(t, n)
		damage(path)
		if err := os.Remove(path + schemaSuffix); err != nil { // which would be enough, but for the root
			t.Fatal(err)
		}
		db, err := Open(t.Context(), path, Options{Migrations: notes, Salvage: claim})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r := db.Recovery()
		if r == nil || !r.Lost() || r.Tables[0].Copied != n || count(t, db) != n {
			t.Errorf("%s: %d rows, told %+v", name, count(t, db), r)
		}
		if err := errors.Join(db.CheckAll(t.Context()), db.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRawFile damages a file and its log.
func FuzzRawFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "x.db")
	db := openAt(f, path, notes)
	insert(f, db, 0, 20)
	if _, err := db.writer.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		f.Fatal(err)
	}
	insert(f, db, 20, 60)
	if _, err := db.writer.Exec("INSERT INTO notes VALUES (1000, ?)", strings.Repeat("y", 20_000)); err != nil {
		f.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	log, err2 := os.ReadFile(path + "-wal")
	if err := errors.Join(err, err2); err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte("x"), false)
	f.Add(uint32(pageSize+3), []byte{0xff, 0xff, 0x10}, false)
	f.Add(uint32(walHeaderSize+frameHeaderSize+pageSize), []byte{0x0d, 0, 0, 0xff, 0xff}, true)
	f.Fuzz(func(t *testing.T, at uint32, bytes []byte, inLog bool) {
		file, wal := append([]byte{}, raw...), append([]byte{}, log...)
		if inLog {
			copy(wal[int(at)%len(wal):], bytes)
		} else {
			copy(file[int(at)%len(file):], bytes)
		}
		p := filepath.Join(t.TempDir(), "y.db")
		if err := errors.Join(os.WriteFile(p, file, 0o600), os.WriteFile(p+"-wal", wal, 0o600)); err != nil {
			t.Fatal(err)
		}
		read(t, p, func(_ int64, row []any) {
			for _, v := range row {
				switch v.(type) {
				case nil, int64, float64, string, []byte:
				default:
					t.Errorf("a %T", v)
				}
			}
		})
	})
}
