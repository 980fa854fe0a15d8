package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// A daemon whose home was removed and made anew leaves its successor's socket alone.
func TestSocketOfAnotherIsLeftAlone(t *testing.T) {
	testutil.LeakCheck(t)
	old := start(t, opts{})
	path := filepath.Join(old.home, api.HomeSocket)
	// A running daemon may make a file in a folder that is just being emptied.
	gone := old.home + ".gone"
	t.Cleanup(func() { _ = os.RemoveAll(gone) })
	if err := os.Rename(old.home, gone); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(old.home, 0o700); err != nil {
		t.Fatal(err)
	}
	next := start(t, opts{home: old.home})
	old.stop()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	if _, err := next.c.Hello(limited(t)); err != nil {
		t.Error(full(err))
	}
	next.stop()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("its own socket is still there: %v", err)
	}
}
