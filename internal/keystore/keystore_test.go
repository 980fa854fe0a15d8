package keystore

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/identity"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustKey(t testing.TB) identity.Key {
	t.Helper()
	k, err := identity.GenerateKey()
	must(t, err)
	return k
}

// open makes a keystore in a folder whose name needs quoting in a shell.
func open(t testing.TB) (*Keystore, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "the $HOME's keys")
	ks, err := Open(dir, uint32(os.Geteuid()))
	must(t, err)
	t.Cleanup(func() { _ = ks.Close() })
	return ks, dir
}

func find(entries []Entry, id identity.ID) Entry {
	i := slices.IndexFunc(entries, func(e Entry) bool { return e.ID == id })
	if i < 0 {
		return Entry{Err: errors.New("no such entry")}
	}
	return entries[i]
}

func TestKeysSurviveReopening(t *testing.T) {
	ks, dir := open(t)
	node, err := ks.NodeKey()
	must(t, err)
	alice, err := ks.Create(1000)
	must(t, err)
	work, err := ks.Create(1000)
	must(t, err)
	imported := mustKey(t)
	must(t, ks.Add(1001, imported))
	must(t, ks.Close())

	ks, err = Open(dir+"/", uint32(os.Geteuid()))
	must(t, err)
	defer ks.Close()
	again, err := ks.NodeKey()
	must(t, err)
	if again.ID() != node.ID() || node.IsZero() {
		t.Errorf("node key %s, was %s", again.ID(), node.ID())
	}
	entries, err := ks.List()
	must(t, err)
	if len(entries) != 3 {
		t.Fatalf("%+v", entries)
	}
	for id, uid := range map[identity.ID]uint32{alice.ID(): 1000, work.ID(): 1000, imported.ID(): 1001} {
		if e := find(entries, id); e.Err != nil || e.UID != uid || e.Key.ID() != id {
			t.Errorf("%+v", e)
		}
	}
	if !bytes.Equal(find(entries, imported.ID()).Key.Seed(), imported.Seed()) {
		t.Error("another key came back")
	}
	if !slices.IsSortedFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) }) {
		t.Error("not in order")
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keystore")
	old := unix.Umask(0o277)
	ks, err := Open(dir, uint32(os.Geteuid()))
	if err == nil {
		defer ks.Close()
		_, err = ks.NodeKey()
	}
	if err == nil {
		_, err = ks.Create(7)
	}
	unix.Umask(old)
	must(t, err)
	files := 0
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = fs.ModeDir | 0o700
		} else {
			files++
		}
		if info.Mode() != want {
			t.Errorf("%s has %v", path, info.Mode())
		}
		return nil
	}))
	if files != 2 {
		t.Errorf("%d files", files)
	}
}

func TestForOwnerAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make files of another user")
	}
	dir := filepath.Join(t.TempDir(), "keystore")
	ks, err := Open(dir, 12345)
	must(t, err)
	defer ks.Close()
	_, err = ks.NodeKey()
	must(t, err)
	_, err = ks.Create(1)
	must(t, err)
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		if st.Uid != 12345 {
			t.Errorf("%s belongs to %d", path, st.Uid)
		}
		return nil
	}))
	if _, err := Open(dir, 0); err == nil {
		t.Error("root takes another's keystore for its own")
	}
}

// TestMendsKeepOwner: root runs the command, the daemon's user must read the result.
func TestMendsKeepOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make files of another user")
	}
	for name, s := range fileShapes(t) {
		if !s.command {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keystore")
			ks, err := Open(dir, 54321)
			must(t, err)
			defer ks.Close()
			_, err = ks.NodeKey()
			must(t, err)
			path := filepath.Join(dir, nodeFile)
			s.make(t, path)
			checkRefusal(t, s, path, func() error { key, err := ks.NodeKey(); return refused(key, err) })
		})
	}
}

func TestParseUID(t *testing.T) {
	for name, want := range map[string]uint32{"0": 0, "1000": 1000, "4294967294": NoUID - 1} {
		if got, ok := parseUID(name); !ok || got != want {
			t.Errorf("%s: %d, %v", name, got, ok)
		}
	}
	for _, name := range []string{"", "00", "01", "-1", "+1", "1_0", "0x1", " 1", "4294967295", "4294967296", "root"} {
		if got, ok := parseUID(name); ok {
			t.Errorf("%q is uid %d", name, got)
		}
	}
}

func TestAddRemove(t *testing.T) {
	ks, dir := open(t)
	key := mustKey(t)
	must(t, ks.Add(5, key))
	path := filepath.Join(dir, identityFolder, "5", key.ID().String()+keySuffix)
	before := snapshot(t, path)
	if err := ks.Add(5, key); !errors.Is(err, fs.ErrExist) {
		t.Errorf("twice: %v", err)
	}
	if err := ks.Add(6, key); !errors.Is(err, fs.ErrExist) {
		t.Errorf("for another user: %v", err)
	}
	if snapshot(t, path) != before {
		t.Error("the key was written again")
	}
	if err := ks.Add(NoUID, mustKey(t)); err == nil {
		t.Error("added for nobody")
	}
	if err := ks.Add(5, identity.Key{}); err == nil {
		t.Error("added no key")
	}
	for _, uid := range []uint32{6, 7} {
		if err := ks.Remove(uid, key.ID()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("removed for %d: %v", uid, err)
		}
	}
	must(t, os.Chmod(path, 0o666)) // a refused one can be removed too
	must(t, ks.Remove(5, key.ID()))
	if err := ks.Remove(5, key.ID()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	must(t, ks.Add(6, key))
}

func TestStrays(t *testing.T) {
	ks, dir := open(t)
	key, err := ks.Create(1000)
	must(t, err)
	all := filepath.Join(dir, identityFolder)
	name := key.ID().String() + keySuffix
	write := func(path string, data []byte) {
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, data, 0o600))
	}
	strays := map[string]uint32{
		all + "/notes.txt":             NoUID,
		all + "/01000":                 NoUID,
		all + "/+5":                    NoUID,
		all + "/4294967295":            NoUID,
		all + "/-1":                    NoUID,
		all + "/1000/" + name + ".bak": 1000,
		all + "/1000/key.key":          1000,
		all + "/1000/line\nbreak":      1000,
		all + "/1000/" + strings.ToUpper(key.ID().String()) + keySuffix:   1000,
		all + "/1000/" + key.ID().PeerID().String() + keySuffix:           1000,
		all + "/1000/" + mustKey(t).ID().String() + keySuffix + "/nested": 0,
	}
	for path := range strays {
		write(path, EncodePEM(key))
	}
	wrong := mustKey(t).ID()
	write(all+"/1000/"+wrong.String()+keySuffix, EncodePEM(key))

	entries, err := ks.List()
	must(t, err)
	if len(entries) != len(strays)+2 {
		t.Errorf("%d entries", len(entries))
	}
	for _, e := range entries {
		switch {
		case e.ID == key.ID():
			must(t, e.Err)
		case e.ID == wrong:
			if e.Err == nil || !strings.Contains(e.Err.Error(), "not the one its name says") {
				t.Errorf("%+v", e)
			}
		default:
			uid, known := strays[e.Path]
			r, ok := errors.AsType[*Refusal](e.Err)
			if !ok || known && e.UID != uid || !e.Key.IsZero() {
				t.Errorf("%+v", e)
				continue
			}
			if strings.Contains(r.Fix+r.Error(), "\n") {
				t.Errorf("a file's name breaks the line: %q", r.Fix)
			}
		}
	}
}

func TestOneOwner(t *testing.T) {
	ks, dir := open(t)
	key, err := ks.Create(1)
	must(t, err)
	name := key.ID().String() + keySuffix
	must(t, os.Mkdir(filepath.Join(dir, identityFolder, "2"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, identityFolder, "2", name), EncodePEM(key), 0o600))
	entries, err := ks.List()
	must(t, err)
	if len(entries) != 2 {
		t.Fatalf("%+v", entries)
	}
	for _, e := range entries {
		if _, ok := errors.AsType[*Refusal](e.Err); !ok || !e.Key.IsZero() {
			t.Errorf("%+v", e)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	ks, _ := open(t)
	var mu sync.Mutex
	nodes := map[identity.ID]bool{}
	shared := mustKey(t)
	added := 0
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			node, err := ks.NodeKey()
			if err != nil {
				t.Error(err)
			}
			if _, err := ks.Create(uint32(i % 3)); err != nil {
				t.Error(err)
			}
			err = ks.Add(uint32(i), shared)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			nodes[node.ID()] = true
			if err == nil {
				added++
			}
			if _, err := ks.List(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	entries, err := ks.List()
	must(t, err)
	if len(nodes) != 1 || added != 1 || len(entries) != 17 {
		t.Errorf("%d node keys, added %d times, %d entries", len(nodes), added, len(entries))
	}
}

// TestTwoProcesses: two Keystores share no mutex, as two processes do not, and
// each sweeps as it opens.
func TestTwoProcesses(t *testing.T) {
	_, dir := open(t)
	var mu sync.Mutex
	nodes := map[identity.ID]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			ks, err := Open(dir, uint32(os.Geteuid()))
			if err != nil {
				t.Error(err)
				return
			}
			defer ks.Close()
			key, err := ks.NodeKey()
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			nodes[key.ID()] = true
		})
	}
	wg.Wait()
	if len(nodes) != 1 {
		t.Errorf("%d node keys", len(nodes))
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "no/such"), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no parent: %v", err)
	}
	ks, _ := open(t)
	must(t, ks.Close())
	if _, err := ks.NodeKey(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("NodeKey after Close: %v", err)
	}
	if _, err := ks.List(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("List after Close: %v", err)
	}
}
