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
