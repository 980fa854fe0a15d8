package sqlite

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// Nothing is committed to a file that was removed: that would be gone with it.
func TestRemovedWhileOpen(t *testing.T) {
	testutil.LeakCheck(t)
	for name, lose := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600))
		},
	} {
		path := filepath.Join(t.TempDir(), "x.db")
		db := openAt(t, path, notes)
		batch := db.NewBatch(BatchHooks{})
		insert(t, db, 0, 1)
		must(t, lose(path))
		// The first read of all: its connections are made now.
		for what, read := range map[string]func() error{
			"view": func() error {
				return db.View(t.Context(), func(tx *sql.Tx) error { return tx.QueryRow("SELECT count(*) FROM notes").Scan(new(int)) })
			},
			"read": func() error {
				return db.Read(t.Context(), func(rows *sql.Rows) error { return rows.Err() }, "SELECT count(*) FROM notes")
			},
			"check":  func() error { return db.CheckAll(t.Context()) },
			"backup": func() error { return db.Backup(t.Context(), path+".backup") },
		} {
			if err := read(); !errors.Is(err, ErrDamaged) || errors.Is(err, ErrDisk) {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
		if err := batch.Do(t.Context(), putNote(2)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: a batch: %v", name, err)
		}
		err := db.Update(t.Context(), func(tx *sql.Tx) error { return nil })
		if file, ok := errors.AsType[*FileError](err); !ok || file.Path != path {
			t.Errorf("%s: an update: %v", name, err)
		}
		must(t, db.Close())
		again := openAt(t, path, notes)
		if r := again.Recovery(); r == nil || name == "removed" && !r.Lost() {
			t.Errorf("%s: told %+v", name, r)
		}
		if n := count(t, again); name == "replaced" && n != 1 { // it was in the log
			t.Errorf("%s: %d rows, want 1", name, n)
		}
	}
}

// A log that is removed costs nothing: what is in it is in the file once that is closed.
func TestLogRemovedWhileOpen(t *testing.T) {
	testutil.LeakCheck(t)
	path := filepath.Join(t.TempDir(), "x.db")
	db := openAt(t, path, notes)
	batch := db.NewBatch(BatchHooks{})
	insert(t, db, 0, 1)
	must(t, os.Remove(path+"-wal"))
	if err := batch.Do(t.Context(), putNote(2)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a batch: %v", err)
	}
	must(t, db.Close())
	again := openAt(t, path, notes)
	if r := again.Recovery(); r != nil {
		t.Errorf("told %+v", r)
	}
	if n := count(t, again); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

// What takes the place of the folder is left alone: it may be an empty mount point, or
// an older copy.
func TestAnotherFolderInItsPlace(t *testing.T) {
	testutil.LeakCheck(t)
	dir := filepath.Join(t.TempDir(), "home")
	must(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "x.db")
	db := openAt(t, path, notes)
	batch := db.NewBatch(BatchHooks{})
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrElsewhere) || !errors.Is(err, ErrDisk) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, os.Rename(dir, dir+".away"))
	refused("no folder", batch.Do(t.Context(), putNote(1)))
	must(t, os.Mkdir(dir, 0o700))
	refused("an empty one", batch.Do(t.Context(), putNote(1)))
	refused("an update", db.Update(t.Context(), func(*sql.Tx) error { return nil }))
	refused("a mark", db.Suspect())
	files := []string{"x.db", "x.db-shm", "x.db-wal", "x.db" + markSuffix}
	for _, f := range files {
		must(t, os.WriteFile(filepath.Join(dir, f), []byte("another"), 0o600))
	}
	refused("one with such files", batch.Do(t.Context(), putNote(1)))

	must(t, os.Rename(dir, dir+".other"))
	must(t, os.Rename(dir+".away", dir))
	must(t, batch.Do(t.Context(), putNote(1)))
	must(t, os.Rename(dir, dir+".away"))
	must(t, os.Rename(dir+".other", dir))
	must(t, db.Close())
	_, err := Open(t.Context(), path, Options{Migrations: notes, Before: db})
	refused("opened again", err)
	for _, f := range files {
		if b, err := os.ReadFile(filepath.Join(dir, f)); string(b) != "another" {
			t.Errorf("%s: %.20q, %v", f, b, err)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != len(files) {
		t.Errorf("%v, %v", list, err)
	}
	must(t, os.Rename(dir, dir+".other"))
	must(t, os.Rename(dir+".away", dir))
	if n := count(t, openAt(t, path, notes)); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

// SQLite removes a log by its name, and knows by the inode's number alone whether that
// is still its own: of a copy of the disk it is.
func TestClosedBesideACopyOfTheDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	testutil.LeakCheck(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "x.db")
	mount := func() {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
			t.Skipf("mounting a tmpfs: %v", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	}
	var inodes []uint64
	made := func() *DB { // with the same numbers each time
		t.Helper()
		mount()
		db := openAt(t, path, notes)
		insert(t, db, 0, 1)
		var st syscall.Stat_t
		must(t, syscall.Stat(path, &st))
		inodes = append(inodes, st.Ino)
		return db
	}
	ours := made()
	made()
	if inodes[0] != inodes[1] {
		t.Skipf("the inodes are %d and %d: this kernel numbers those of all tmpfs", inodes[0], inodes[1])
	}
	must(t, ours.Close())
	for _, f := range []string{path, path + "-wal", path + markSuffix} {
		if info, err := os.Stat(f); err != nil || info.Size() == 0 {
			t.Errorf("%s of the other disk: %v, %v", f, info, err)
		}
	}
}
