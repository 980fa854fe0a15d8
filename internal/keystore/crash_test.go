package keystore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// steps of every write of a key; a crash between any two must leave either no
// key or a whole one.
var steps = []string{"create", "write", "sync file", "rename", "sync folder"}

func TestWriteOrder(t *testing.T) {
	ks, _ := open(t)
	var got []string
	ks.step = func(name string) error { got = append(got, name); return nil }
	_, err := ks.NodeKey()
	must(t, err)
	_, err = ks.Create(1)
	must(t, err)
	if !slices.Equal(got, slices.Concat(steps, steps)) {
		t.Errorf("%q", got)
	}
}

func TestCrashAtEachStep(t *testing.T) {
	crash := errors.New("power cut")
	writes := map[string]func(*Keystore) error{
		"node key": func(ks *Keystore) error { _, err := ks.NodeKey(); return err },
		"identity": func(ks *Keystore) error { _, err := ks.Create(1); return err },
	}
	for name, write := range writes {
		for _, at := range steps {
			t.Run(name+"/"+at, func(t *testing.T) {
				ks, dir := open(t)
				ks.step = func(step string) error {
					if visible := keyFiles(t, dir); (step == "sync folder") != (len(visible) == 1) {
						t.Errorf("before %q there is %q", step, visible)
					}
					if step == at {
						return crash
					}
					return nil
				}
				if err := write(ks); !errors.Is(err, crash) {
					t.Fatalf("%v", err)
				}
				ks.step = nil
				if entries, err := ks.List(); err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Err != nil {
					t.Errorf("%+v, %v", entries, err)
				}
				_, err := ks.NodeKey()
				must(t, err)
			})
		}
	}
}

// TestLeftoversAreSwept: what a crash leaves is no key, and goes.
func TestLeftoversAreSwept(t *testing.T) {
	ks, dir := open(t)
	key, err := ks.Create(1)
	must(t, err)
	path := filepath.Join(dir, identityFolder, "1", key.ID().String()+keySuffix)
	must(t, os.WriteFile(filepath.Join(dir, tempPrefix+"A"), EncodePEM(mustKey(t)), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, identityFolder, tempPrefix+"B"), 0o700))
	// Of a crash between link and unlink, where a file system has no exclusive rename.
	must(t, os.Link(path, filepath.Join(filepath.Dir(path), tempPrefix+"C")))
	must(t, ks.Close())

	ks, err = Open(dir, uint32(os.Geteuid()))
	must(t, err)
	defer ks.Close()
	entries, err := ks.List()
	must(t, err)
	if len(entries) != 1 || entries[0].Err != nil {
		t.Errorf("%+v", entries)
	}
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(path, tempPrefix) {
			t.Errorf("left: %s", path)
		}
		return err
	}))
}

// TestNothingIsReplaced: neither by the rename nor by what stands in for it.
func TestNothingIsReplaced(t *testing.T) {
	for name, rename := range map[string]func(int, string, string) error{"rename": renameNew, "link": linkNew} {
		dir := t.TempDir()
		f, err := os.Open(dir)
		must(t, err)
		defer f.Close()
		read := func(name string) string {
			b, _ := os.ReadFile(filepath.Join(dir, name))
			return string(b)
		}
		must(t, os.WriteFile(filepath.Join(dir, "new"), []byte("new"), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "old"), []byte("old"), 0o600))
		if err := rename(int(f.Fd()), "new", "old"); !errors.Is(err, fs.ErrExist) || read("old") != "old" {
			t.Errorf("%s: %v, %q", name, err, read("old"))
		}
		must(t, rename(int(f.Fd()), "new", "free"))
		if read("free") != "new" || read("new") != "" {
			t.Errorf("%s: %q, %q", name, read("free"), read("new"))
		}
		must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
		must(t, rename(int(f.Fd()), "folder", "folder2"))
	}
}

func keyFiles(t *testing.T, dir string) (found []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(path, keySuffix) && !d.IsDir() {
			found = append(found, path)
		}
		return err
	}))
	return found
}
