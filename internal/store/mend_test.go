package store

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

// filled adds some of everything.
func filled(t *testing.T, s *Store) {
	t.Helper()
	must(t, s.SetIdentity(t.Context(), id(1), 1000, "alice", true))
	for n := range 20 {
		must(t, s.AddContact(t.Context(), NewContact{Owner: id(1), ID: id(10 + n), Name: "c" + string(rune('a'+n)),
			Delegation: delegation(id(10+n), id(200+n), n), Addresses: []string{"/ip4/1.1.1.1"}, Node: id(300 + n), Address: "/ip4/2.2.2.2"}))
		_, err := s.AddGrant(t.Context(), id(1), WhoContact(id(10+n)), "Notes", "")
		must(t, err)
	}
	must(t, s.AddInvite(t.Context(), id(1), [32]byte{1}, "zoe", time.Now().Add(time.Hour)))
	must(t, s.AddInvite(t.Context(), id(1), [32]byte{2}, "", time.Now().Add(time.Hour)))
	must(t, s.Block(t.Context(), id(1), id(99)))
	must(t, s.SetMeta(t.Context(), "port", "4100"))
}

// Damage that a write meets costs nothing: the file is made anew from memory, and
// the write is done.
func TestDamageInUse(t *testing.T) {
	s := open(t)
	filled(t, s)
	var told *sqlite.Recovery
	s.OnRecovery(func(r *sqlite.Recovery) { told = r })
	spoilLog(t, s.db.Path())

	must(t, s.SetMeta(t.Context(), "key", "value"))
	if told == nil || told.MovedTo == "" {
		t.Fatalf("told %+v", told)
	}
	if _, err := os.Stat(told.MovedTo); err != nil {
		t.Error(err)
	}
	told = nil
	must(t, s.SetMeta(t.Context(), "key", "other"))
	if told != nil {
		t.Errorf("repaired again: %+v", told)
	}
} // open compares disk and memory

// spoilLog overwrites every page in the log, and has another connection write, so
// that ours does not trust what it remembers of them.
func spoilLog(t *testing.T, path string) {
	t.Helper()
	other, err := openDB(t.Context(), path, nil, nil)
	must(t, err)
	defer other.Close()
	touch := func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT OR REPLACE INTO meta (key, value) VALUES ('other', 'x')")
		return err
	}
	must(t, other.Update(t.Context(), touch)) // now it remembers what it needs
	raw, err := os.ReadFile(path + "-wal")
	must(t, err)
	const header, frameHeader, page = 32, 24, 4096
	for at := header + frameHeader; at+page <= len(raw); at += frameHeader + page {
		clear(raw[at : at+page])
	}
	f, err := os.OpenFile(path+"-wal", os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(raw, 0)
	must(t, err)
	must(t, f.Close())
	must(t, other.Update(t.Context(), touch))
}

// A repair that fails at first is told once it succeeded.
func TestRepairThatFailsFirstIsTold(t *testing.T) {
	for name, hinder := range map[string]func(path string) (relieve func() error){
		"before the exchange": func(path string) func() error {
			must(t, os.MkdirAll(path+".rebuilding/x", 0o700))
			return func() error { return os.RemoveAll(path + ".rebuilding") }
		},
		"after it": func(path string) func() error { // a journal that cannot be made
			must(t, os.MkdirAll(path+"-journal/x", 0o700))
			return func() error { return os.RemoveAll(path + "-journal") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			filled(t, s)
			var told []*sqlite.Recovery
			s.OnRecovery(func(r *sqlite.Recovery) { told = append(told, r) })
			spoilLog(t, s.db.Path())
			relieve := hinder(s.db.Path())
			if err := s.SetMeta(t.Context(), "key", "value"); err == nil || len(told) > 0 {
				t.Fatalf("%v, told %+v", err, told)
			}
			must(t, relieve())
			must(t, s.SetMeta(t.Context(), "key", "value"))
			if len(told) != 1 || told[0].MovedTo == "" {
				t.Errorf("told %+v", told)
			}
		})
	}
}

// A file that is damaged again and again is repaired ever more seldom; what it is
// refused with says so.
func TestRepairsPause(t *testing.T) {
	s := open(t)
	var skip time.Duration
	s.now = func() time.Time { return micro(time.Now().Add(skip)) }
	filled(t, s)
	repairs := 0
	s.OnRecovery(func(*sqlite.Recovery) { repairs++ })
	grant := func(n int) error { // reads pages that spoilLog does not write again
		_, err := s.AddGrant(t.Context(), id(1), WhoContact(id(10)), fmt.Sprint("Late", n), "")
		return err
	}
	for n := range freeRepairs {
		spoilLog(t, s.db.Path())
		must(t, grant(n))
		if repairs != n+1 {
			t.Fatalf("%d repairs", repairs)
		}
	}
	spoilLog(t, s.db.Path())
	before := len(s.Grants(id(1)))
	for range 3 {
		err := grant(99)
		if !errors.Is(err, sqlite.ErrDamaged) || !strings.Contains(err.Error(), "the next repair is in ") {
			t.Errorf("got %v", err)
		}
	}
	if got := len(s.Grants(id(1))); repairs != freeRepairs || got != before {
		t.Errorf("%d repairs, %d grants of %d", repairs, got, before)
	}
	skip = 10 * time.Minute
	must(t, grant(100))
	if repairs != freeRepairs+1 {
		t.Errorf("%d repairs", repairs)
	}
}

// A file that could not be opened again is tried at the next write.
func TestOpenedAgain(t *testing.T) {
	s := open(t)
	filled(t, s)
	path, away := s.db.Path(), s.db.Path()+".away"
	must(t, os.Rename(path, away))
	must(t, os.Mkdir(path, 0o700)) // no file can be opened there
	must(t, s.await(t.Context()))
	if err := s.reopen(t.Context(), nil); err == nil {
		t.Fatal("a folder was opened as the database")
	}
	s.pass()
	if err := s.SetMeta(t.Context(), "key", "value"); err == nil {
		t.Error("a write without a file succeeded")
	}
	if v, ok := s.Meta("key"); ok {
		t.Errorf("what was not written is in memory: %q", v)
	}
	must(t, os.Remove(path))
	must(t, os.Rename(away, path))
	must(t, s.SetMeta(t.Context(), "key", "value"))
	must(t, s.Heal(t.Context()))
}

// Every table is sealed and dumped: one that was forgotten would not be checked,
// or lost when the file is made anew.
func TestTables(t *testing.T) {
	s := open(t)
	var found []string
	err := s.db.View(t.Context(), func(tx *sql.Tx) error {
		rows, err := tx.Query("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			found = append(found, "")
			if err := rows.Scan(&found[len(found)-1]); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	must(t, err)
	slices.Sort(found)
	if known := slices.Sorted(slices.Values(tables())); !slices.Equal(found, known) {
		t.Errorf("there are %v, known are %v", found, known)
	}
	steps := migrations()
	for _, table := range found {
		if !strings.Contains(steps[1].SQL, `ALTER TABLE "`+table+`"`) {
			t.Errorf("%s is not sealed", table)
		}
	}
}

// A row that was changed on the disk is not believed: a contact would be another.
func TestChangedRow(t *testing.T) {
	testutil.LeakCheck(t)
	dir := t.TempDir()
	s := openAt(t, dir)
	filled(t, s)
	must(t, s.Close())
	path := filepath.Join(dir, File)
	raw, err := os.ReadFile(path)
	must(t, err)
	was, forged := id(12), id(13)
	forged[0]++
	bad := strings.ReplaceAll(string(raw), string(was[:]), string(forged[:]))
	if bad == string(raw) {
		t.Fatal("the contact is not in the file")
	}
	must(t, os.WriteFile(path, []byte(bad), 0o600))
	s = openAt(t, dir)
	r := s.Recovery()
	if r == nil || !r.Lost() {
		t.Fatalf("recovery %+v", r)
	}
	if s.Trusted(forged) || s.GrantedAny(id(1), forged) {
		t.Error("who was written into the file is a contact now")
	}
	if n := len(s.Contacts(id(1))); n != 19 {
		t.Errorf("%d contacts are left, want 19", n)
	}
	for _, table := range r.Tables {
		if table.Name == "contacts" && table.Missing != 1 || table.Name == "identities" && table.Lost {
			t.Errorf("told %+v", table)
		}
	}
}

// What a later version wrote is left alone.
func TestNewerSchema(t *testing.T) {
	testutil.LeakCheck(t)
	dir := t.TempDir()
	s := openAt(t, dir)
	filled(t, s)
	must(t, s.Close())
	path := filepath.Join(dir, File)
	later, err := sqlite.Open(t.Context(), path, sqlite.Options{
		Migrations: append(migrations(), sqlite.Migration{Name: "later", SQL: "ALTER TABLE contacts ADD COLUMN note TEXT"})})
	must(t, err)
	must(t, later.Close())
	before, err := os.ReadFile(path)
	must(t, err)
	if _, err := Open(t.Context(), dir, nil); !errors.Is(err, sqlite.ErrNewer) {
		t.Fatalf("got %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file was changed: %v", err)
	}
}
