package sqlite

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
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
		if err := batch.Do(t.Context(), putNote(2)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: a batch: %v", name, err)
		}
		err := db.Update(t.Context(), func(tx *sql.Tx) error { return nil })
		if file, ok := errors.AsType[*FileError](err); !ok || file.Path != path {
			t.Errorf("%s: an update: %v", name, err)
		}
		must(t, db.Close())
		if r := openAt(t, path, notes).Recovery(); r == nil || name == "removed" && !r.Lost() {
			t.Errorf("%s: told %+v", name, r)
		}
	}
}

// Another disk in the place of ours is not written beside: what was committed to the
// one that nobody sees any more would be gone with the next start.
func TestAnotherDiskInItsPlace(t *testing.T) {
	testutil.LeakCheck(t)
	dir := filepath.Join(t.TempDir(), "home")
	must(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "x.db")
	db := openAt(t, path, notes)
	batch := db.NewBatch(BatchHooks{})
	must(t, os.Rename(dir, dir+".away"))
	must(t, os.Mkdir(dir, 0o700))
	if err := batch.Do(t.Context(), putNote(1)); err != nil {
		t.Errorf("the disk is away, with all that is on it: %v", err)
	}
	must(t, os.WriteFile(path, nil, 0o600))
	if err := batch.Do(t.Context(), putNote(2)); !errors.Is(err, ErrDisk) {
		t.Errorf("another one is there: %v", err)
	}
	must(t, db.Close())
}
