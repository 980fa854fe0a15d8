package keystore

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// shape is one way in which a key file is not what it should be.
type shape struct {
	says    string // part of the Reason
	command bool   // the Fix is a command, and running it mends
	root    bool   // cannot be made without root
	make    func(t *testing.T, path string)
}

func fileShapes(t *testing.T) map[string]shape {
	key := mustKey(t)
	good := EncodePEM(key)
	pkcs8 := func(k any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		must(t, err)
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	holds := func(data []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) { must(t, os.WriteFile(path, data, 0o600)) }
	}
	mode := func(m os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, path string) { must(t, os.Chmod(path, m)) }
	}
	replace := func(f func(string) error) func(*testing.T, string) {
		return func(t *testing.T, path string) { must(t, os.Remove(path)); must(t, f(path)) }
	}
	return map[string]shape{
		"mode 0644":     {"mode 0644", true, false, mode(0o644)},
		"mode 0640":     {"mode 0640", true, false, mode(0o640)},
		"mode 0601":     {"mode 0601", true, false, mode(0o601)},
		"mode 0620":     {"mode 0620", true, false, mode(0o620)},
		"another owner": {"belongs to uid 12345", true, true, func(t *testing.T, p string) { must(t, os.Chown(p, 12345, -1)) }},
		"another owner, and loose": {"belongs to uid 12345, not", true, true, func(t *testing.T, p string) {
			must(t, os.Chown(p, 12345, -1))
			must(t, os.Chmod(p, 0o666))
		}},
		"symbolic link": {"symbolic link", false, false, func(t *testing.T, p string) {
			target := filepath.Join(t.TempDir(), "the key")
			must(t, os.Rename(p, target))
			must(t, os.Symlink(target, p))
		}},
		"dangling link": {"symbolic link", false, false, replace(func(p string) error { return os.Symlink("nowhere", p) })},
		"hard link to another's file": {"2 names", false, true, func(t *testing.T, p string) {
			must(t, os.Chown(p, 12345, -1))
			must(t, os.Link(p, filepath.Join(t.TempDir(), "other name")))
		}},
		"hard link": {"2 names", false, false, func(t *testing.T, p string) {
			must(t, os.Link(p, filepath.Join(t.TempDir(), "other name")))
		}},
		"named pipe": {"named pipe", false, false, replace(func(p string) error { return unix.Mkfifo(p, 0o600) })},
		"device":     {"device", false, true, replace(func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, 1<<8|5) })},
		"folder":     {"it is a folder, not a file", false, false, replace(func(p string) error { return os.Mkdir(p, 0o700) })},
		"socket": {"socket", false, false, func(t *testing.T, p string) {
			must(t, os.Remove(p))
			// A socket's path has at most 108 characters: bind it elsewhere.
			short := filepath.Join(t.TempDir(), "s")
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
			must(t, err)
			l.SetUnlinkOnClose(false)
			must(t, l.Close())
			must(t, os.Rename(short, p))
		}},
		"empty":             {"empty", false, false, holds(nil)},
		"only white space":  {"empty", false, false, holds([]byte(" \n\n"))},
		"garbage":           {"not a PEM", false, false, holds(bytes.Repeat([]byte{0xa5, 0}, 300))},
		"hex of fastn-p2p":  {"not a PEM", false, false, holds([]byte(strings.Repeat("ab", 32) + "\n"))},
		"over 16 KiB":       {"over 16 KiB", false, false, holds(append(bytes.Clone(good), bytes.Repeat([]byte("\n"), maxKeyFile)...))},
		"two keys":          {"more than one key", false, false, holds(append(bytes.Clone(good), EncodePEM(mustKey(t))...))},
		"data after":        {"after the key", false, false, holds(append(bytes.Clone(good), "comment"...))},
		"data before":       {"not a PEM", false, false, holds(append([]byte("comment\n"), good...))},
		"cut short":         {"not a PEM", false, false, holds(good[:len(good)-30])},
		"RSA":               {"not an Ed25519", false, false, holds(pkcs8(rsaKey))},
		"EC":                {"not an Ed25519", false, false, holds(pkcs8(ecKey))},
		"RSA, PKCS#1":       {"not an Ed25519", false, false, holds(block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)))},
		"OpenSSH":           {"OpenSSH", false, false, holds(block("OPENSSH PRIVATE KEY", []byte("openssh-key-v1")))},
		"encrypted":         {"encrypted", false, false, holds(block("ENCRYPTED PRIVATE KEY", []byte("x")))},
		"certificate":       {"not a private key", false, false, holds(block("CERTIFICATE", []byte("x")))},
		"not DER":           {"not PKCS#8", false, false, holds(block("PRIVATE KEY", []byte("x")))},
		"bytes after DER":   {"after the key", false, false, holds(block("PRIVATE KEY", append(der(key), 0)))},
		"PEM headers":       {"beside the key", false, false, holds(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"Comment": "x"}, Bytes: der(key)}))},
		"with a public key": {"unusual form", false, false, holds(block("PRIVATE KEY", derV2(key)))},
	}
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func der(key identity.Key) []byte {
	b, _ := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(key.Seed()))
	return b
}

// derV2 is RFC 8410's version 2, with the public key attached.
func derV2(key identity.Key) []byte {
	id := key.ID()
	b := append(der(key), 0x81, 0x21, 0x00)
	b = append(b, id[:]...)
	b[1], b[4] = byte(len(b)-2), 1
	return b
}

func TestRefusedFiles(t *testing.T) {
	for name, s := range fileShapes(t) {
		t.Run("node key/"+name, func(t *testing.T) {
			ks, dir := open(t)
			_, err := ks.NodeKey()
			must(t, err)
			path := filepath.Join(dir, nodeFile)
			spoil(t, s, path)
			before := snapshot(t, path)
			read := func() error { key, err := ks.NodeKey(); return refused(key, err) }
			checkRefusal(t, s, path, read)
			if after := snapshot(t, path); !s.command && after != before {
				t.Errorf("the refused key was touched: %s, was %s", after, before)
			}
		})
		t.Run("identity/"+name, func(t *testing.T) {
			ks, dir := open(t)
			key, err := ks.Create(1000)
			must(t, err)
			healthy, err := ks.Create(1000)
			must(t, err)
			path := filepath.Join(dir, identityFolder, "1000", key.ID().String()+keySuffix)
			spoil(t, s, path)
			checkRefusal(t, s, path, func() error {
				entries, err := ks.List()
				must(t, err)
				if len(entries) != 2 || find(entries, healthy.ID()).Err != nil {
					t.Fatalf("the healthy key suffers: %+v", entries)
				}
				e := find(entries, key.ID())
				if e.UID != 1000 || e.Path != path {
					t.Errorf("%+v", e)
				}
				return refused(e.Key, e.Err)
			})
		})
	}
}

func TestRefusedFolders(t *testing.T) {
	shapes := map[string]shape{
		"mode 0755":     {"mode 0755", true, false, func(t *testing.T, p string) { must(t, os.Chmod(p, 0o755)) }},
		"mode 0710":     {"mode 0710", true, false, func(t *testing.T, p string) { must(t, os.Chmod(p, 0o710)) }},
		"another owner": {"belongs to uid 12345", true, true, func(t *testing.T, p string) { must(t, os.Chown(p, 12345, -1)) }},
		"symbolic link": {"symbolic link", false, false, func(t *testing.T, p string) {
			target := filepath.Join(t.TempDir(), "it's moved")
			must(t, os.Rename(p, target))
			must(t, os.Symlink(target, p))
		}},
		"file": {"it is a file, not a folder", false, false, func(t *testing.T, p string) {
			must(t, os.RemoveAll(p))
			must(t, os.WriteFile(p, nil, 0o600))
		}},
		"named pipe": {"named pipe", false, false, func(t *testing.T, p string) {
			must(t, os.RemoveAll(p))
			must(t, unix.Mkfifo(p, 0o600))
		}},
	}
	for name, s := range shapes {
		for _, where := range []string{".", identityFolder, identityFolder + "/1000"} {
			t.Run(where+"/"+name, func(t *testing.T) {
				ks, dir := open(t)
				_, err := ks.Create(1000)
				must(t, err)
				must(t, ks.Close())
				path := filepath.Join(dir, where)
				spoil(t, s, path)
				checkRefusal(t, s, path, func() error { return readAll(dir) })
			})
		}
	}
}

// readAll opens the keystore anew, as a reload does, and gives its first refusal.
func readAll(dir string) error {
	ks, err := Open(dir, uint32(os.Geteuid()))
	if err != nil {
		return err
	}
	defer ks.Close()
	entries, err := ks.List()
	for _, e := range entries {
		err = errors.Join(err, e.Err)
	}
	_, addErr := ks.Create(1000)
	if (err == nil) != (addErr == nil) {
		return fmt.Errorf("List says %v, Create %w", err, addErr)
	}
	return err
}

func TestFolderLoosenedWhileOpen(t *testing.T) {
	ks, dir := open(t)
	must(t, os.Chmod(dir, 0o755))
	for name, f := range map[string]func() error{
		"NodeKey": func() error { _, err := ks.NodeKey(); return err },
		"Create":  func() error { _, err := ks.Create(1); return err },
		"List":    func() error { _, err := ks.List(); return err },
		"Remove":  func() error { return ks.Remove(1, identity.ID{1}) },
	} {
		if _, ok := errors.AsType[*Refusal](f()); !ok {
			t.Errorf("%s: %v", name, f())
		}
	}
}

// TestUnreadable needs a user whom modes bind.
func TestUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	ks, dir := open(t)
	_, err := ks.NodeKey()
	must(t, err)
	s := shape{"may not read", true, false, func(t *testing.T, p string) { must(t, os.Chmod(p, 0)) }}
	path := filepath.Join(dir, nodeFile)
	spoil(t, s, path)
	checkRefusal(t, s, path, func() error { key, err := ks.NodeKey(); return refused(key, err) })
}

// What root pastes for the system's daemon does no harm to what a link, planted
// after the daemon looked, points to; and it mends where none was.
func TestFixFollowsNoLink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, whom it is about")
	}
	const daemon = 997
	dir := t.TempDir()
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	must(t, os.Chown(dir, daemon, daemon))
	path, victim := filepath.Join(dir, "node.key"), filepath.Join(dir, "victim")
	must(t, os.WriteFile(victim, nil, 0o644))
	must(t, os.WriteFile(path, nil, 0o644))
	fix := func() string {
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		r, ok := errors.AsType[*Refusal](checkStat(path, &st, wantFile, daemon))
		if !ok || !r.Command {
			t.Fatalf("%v is not mended by a command", r)
		}
		return r.Fix
	}
	owned := fix()
	must(t, os.Chown(path, daemon, daemon))
	loose := fix()
	before := snapshot(t, victim)
	for _, command := range []string{owned, loose} {
		must(t, os.Remove(path))
		must(t, os.Symlink(victim, path))
		must(t, os.Lchown(path, daemon, daemon))
		_ = exec.Command("sh", "-c", command).Run()
		if after := snapshot(t, victim); after != before {
			t.Errorf("%q made %s of %s", command, after, before)
		}
		must(t, os.Remove(path))
		must(t, os.WriteFile(path, nil, 0o644))
		if command == loose {
			must(t, os.Chown(path, daemon, daemon))
		}
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		if err := checkStat(path, &st, wantFile, daemon); err != nil {
			t.Errorf("after %q: %v", command, err)
		}
	}
}

func spoil(t *testing.T, s shape, path string) {
	t.Helper()
	if s.root && os.Geteuid() != 0 {
		t.Skip("needs root to make this shape")
	}
	s.make(t, path)
}

func refused(key identity.Key, err error) error {
	if err != nil && !key.IsZero() {
		return errors.New("a key came with the error")
	}
	return err
}

// checkRefusal expects a *Refusal of path, and that its Fix, if a command, mends.
func checkRefusal(t *testing.T, s shape, path string, read func() error) {
	t.Helper()
	err := read()
	r, ok := errors.AsType[*Refusal](err)
	if !ok {
		t.Fatalf("no refusal but %v", err)
	}
	if r.Path != path || !strings.Contains(r.Reason, s.says) || !strings.Contains(err.Error(), api.ShellQuote(path)) {
		t.Errorf("%v, want %q about %s", err, s.says, path)
	}
	if r.Command != s.command || !r.Command && !strings.Contains(r.Fix, "restore the ") {
		t.Errorf("fix %q, a command: %v", r.Fix, r.Command)
	}
	if !s.command {
		return
	}
	if out, err := exec.Command("sh", "-c", r.Fix).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", r.Fix, err, out)
	}
	if err := read(); err != nil {
		t.Errorf("after %q: %v", r.Fix, err)
	}
}

// snapshot tells whether a file was written, replaced or changed mode.
func snapshot(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return fmt.Sprint(st.Ino, st.Mode, st.Uid, st.Size, st.Mtim, st.Ctim)
}
