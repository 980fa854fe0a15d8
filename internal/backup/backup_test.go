package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

const idKey = "keystore/identities/1000/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.key"

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func state() map[string]string {
	return map[string]string{"messages.db": strings.Repeat("messages", 999), "fastn.db": "contacts", "keystore/node.key": "node", idKey: "mine"}
}

// made writes a backup of a state folder.
func made(t testing.TB, dir string) (backup []byte, keys int, skipped []string) {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(t.Context(), &b, About{Version: "1", Node: "n", Created: time.Unix(1, 0)})
	for _, name := range databases() {
		err = errors.Join(err, w.Database(name, filepath.Join(dir, name)))
	}
	keys, skipped, keysErr := w.Keys(dir)
	size, closeErr := w.Close()
	if err := errors.Join(err, keysErr, closeErr); err != nil || size != int64(b.Len()) {
		t.Fatal(err, size)
	}
	return b.Bytes(), keys, skipped
}

// contents are the files below dir.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
		text, err := os.ReadFile(path)
		got[strings.TrimPrefix(path, dir+"/")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func same(a, b map[string]string) bool {
	for name := range a {
		if a[name] != b[name] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestBackupAndRestore(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, from, state())
	b, keys, skipped := made(t, from)
	if keys != 2 || len(skipped) != 0 {
		t.Errorf("%d keys, without %q", keys, skipped)
	}
	write(t, to, map[string]string{"fastn.toml": "kept", ".restore/left": "by an interrupted one"})
	about, err := Restore(bytes.NewReader(b), to, "fastn.toml")
	want := state()
	want["fastn.toml"] = "kept"
	if got := contents(t, to); err != nil || about.Node != "n" || !about.Created.Equal(time.Unix(1, 0)) || !same(got, want) {
		t.Errorf("%+v, %v: %v", about, err, got)
	}
	if _, err := Restore(bytes.NewReader(b), to, "fastn.toml"); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("over what is there: %v", err)
	}
}

// A key that the keystore refuses is not made an acceptable one by a restore.
func TestRefusedKeysAreSkipped(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, state())
	open, link, odd := strings.ReplaceAll(idKey, "a.key", "b.key"), strings.ReplaceAll(idKey, "a.key", "c.key"), "keystore/other.key"
	write(t, dir, map[string]string{open: "x", odd: "x"})
	if err := errors.Join(os.Chmod(filepath.Join(dir, open), 0o640), os.Symlink(filepath.Join(dir, idKey), filepath.Join(dir, link))); err != nil {
		t.Fatal(err)
	}
	if _, keys, skipped := made(t, dir); keys != 2 || !slices.Equal(skipped, []string{open, link, odd}) {
		t.Errorf("%d keys, without %q", keys, skipped)
	}
}

// Cut short or changed anywhere, nothing of a backup is restored.
func TestDamagedBackups(t *testing.T) {
	from := t.TempDir()
	write(t, from, state())
	b, _, _ := made(t, from)
	end := bytes.LastIndexFunc(b, func(r rune) bool { return r != 0 }) // two empty blocks close it
	for at := 0; at <= end; at += 97 {
		changed := slices.Clone(b)
		changed[at] ^= 1
		for what, damaged := range map[string][]byte{"cut": b[:at], "changed": changed} {
			to := t.TempDir()
			_, err := Restore(bytes.NewReader(damaged), to)
			if got := contents(t, to); err == nil && !same(got, state()) || err != nil && len(got) > 0 || err == nil && what == "cut" {
				t.Fatalf("%s at %d: %v, %d files", what, at, err, len(got))
			}
		}
	}
}

// archive makes a tar of names, all with the same text.
func archive(t testing.TB, header tar.Header, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h, text := header, `{"format":1}`
		h.Name, h.Size, h.Mode = name, int64(len(text)), 0o777
		if h.Typeflag != tar.TypeReg && name != aboutName {
			h.Size, text = 0, ""
		} else {
			h.Typeflag = tar.TypeReg
		}
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What was put behind a whole backup has nothing of it restored; padding is no harm.
func TestBehindTheEnd(t *testing.T) {
	from := t.TempDir()
	write(t, from, state())
	b, _, _ := made(t, from)
	end := bytes.LastIndexFunc(b, func(r rune) bool { return r != 0 })
	members := b[:(end/512+1)*512] // without the two empty blocks
	for name, c := range map[string]struct {
		backup []byte
		ok     bool
	}{
		"a member":         {append(slices.Clone(members), archive(t, tar.Header{}, "../../evil")...), false},
		"a key":            {append(slices.Clone(members), archive(t, tar.Header{}, "keystore/identities/7/x.key")...), false},
		"another archive":  {append(slices.Clone(b), archive(t, tar.Header{}, "evil")...), false},
		"a byte":           {append(slices.Clone(b), 'x'), false},
		"a byte, far away": {append(append(slices.Clone(b), make([]byte, 1<<20)...), 'x'), false},
		"no tar":           {append(slices.Clone(members), bytes.Repeat([]byte("text"), 999)...), false},
		"padding":          {append(slices.Clone(b), make([]byte, 10240)...), true},
	} {
		to := t.TempDir()
		_, err := Restore(bytes.NewReader(c.backup), to)
		switch got := contents(t, to); {
		case c.ok && (err != nil || !same(got, state())):
			t.Errorf("%s: %v, %d files", name, err, len(got))
		case !c.ok && (api.CodeOf(err) != api.CodeBadRequest || len(got) > 0):
			t.Errorf("%s: %v, %d files", name, err, len(got))
		}
	}
}

func TestForeignArchives(t *testing.T) {
	start := []string{aboutName, "messages.db", "fastn.db"}
	for name, b := range map[string][]byte{
		"nothing":    nil,
		"text":       bytes.Repeat([]byte("text"), 999),
		"empty":      archive(t, tar.Header{}),
		"other":      archive(t, tar.Header{}, "etc/passwd"),
		"order":      archive(t, tar.Header{}, aboutName, "fastn.db", "messages.db"),
		"outside":    archive(t, tar.Header{}, append(start, "keystore/identities/../../../x.key")...),
		"absolute":   archive(t, tar.Header{}, append(start, "/keystore/node.key")...),
		"twice":      archive(t, tar.Header{}, append(start, "keystore/node.key", "keystore/node.key")...),
		"link":       archive(t, tar.Header{Typeflag: tar.TypeSymlink, Linkname: "/etc"}, start...),
		"no sums":    archive(t, tar.Header{}, append(start, "keystore/node.key")...),
		"wrong sums": archive(t, tar.Header{}, append(start, "keystore/node.key", sumsName)...),
	} {
		to := t.TempDir()
		_, err := Restore(bytes.NewReader(b), to)
		if e := api.AsError(err); e == nil || e.Code != api.CodeBadRequest || e.Hint == "" || len(contents(t, to)) > 0 {
			t.Errorf("%s: %v", name, err)
		} else if name == "link" && !strings.Contains(e.Message, "is no file") {
			t.Errorf("a link was taken for a file: %v", err)
		}
	}
}

// full is a disk with room for some bytes.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	n := min(len(p), f.left)
	if f.left -= n; n < len(p) {
		return n, &os.PathError{Op: "write", Path: "client", Err: errors.New("no space left on device")}
	}
	return n, nil
}

func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, state())
	w, err := NewWriter(t.Context(), &full{4096}, About{})
	if err == nil {
		err = w.Database("messages.db", filepath.Join(dir, "messages.db"))
	}
	if !errors.Is(err, ErrSink) || err.Error() != "cannot write the backup: no space left on device" {
		t.Errorf("a full disk: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w, err = NewWriter(ctx, io.Discard, About{})
	cancel()
	if err != nil || !errors.Is(w.Database("messages.db", filepath.Join(dir, "messages.db")), context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func FuzzRestore(f *testing.F) {
	dir := f.TempDir()
	write(f, dir, map[string]string{"messages.db": "m", "fastn.db": "f", "keystore/node.key": "node", idKey: "mine"})
	b, _, _ := made(f, dir)
	f.Add(b)
	f.Add(archive(f, tar.Header{}, aboutName, "messages.db", "fastn.db", "keystore/node.key", sumsName))
	f.Fuzz(func(t *testing.T, b []byte) {
		to, err := os.MkdirTemp("/dev/shm", "fastn-fuzz-") // what is restored is synced
		if err != nil {
			to = t.TempDir()
		}
		defer os.RemoveAll(to)
		if _, err := Restore(bytes.NewReader(b), to); err != nil && len(contents(t, to)) > 0 {
			t.Errorf("something was left: %v", err)
		}
	})
}
