package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

func mode(t testing.TB, path string, m fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, m); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// runFix runs a fix as somebody would who pastes it into a shell; the reload at
// its end is the test's.
func (d *testDaemon) runFix(fix string) {
	d.t.Helper()
	command, ok := strings.CutSuffix(fix, " && "+d.reloadCommand())
	if !ok {
		d.t.Fatalf("the fix %q does not end with the reload", fix)
	}
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

func (d *testDaemon) nodeKey() string { return filepath.Join(d.home, "keystore", "node.key") }

// ecKey is a private key of another kind, in the right form.
func ecKey(t testing.TB) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestLockedStart(t *testing.T) {
	for _, c := range []struct {
		name    string
		spoil   func(t *testing.T, key string)
		command bool // the fix is a command, and not a backup to restore
	}{
		{"node key 0644", func(t *testing.T, key string) { mode(t, key, 0o644) }, true},
		{"node key a link", func(t *testing.T, key string) {
			moved := filepath.Join(filepath.Dir(filepath.Dir(key)), "moved.key")
			if err := os.Rename(key, moved); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(moved, key); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"keystore 0755", func(t *testing.T, key string) { mode(t, filepath.Dir(key), 0o755) }, true},
		{"identities 0755", func(t *testing.T, key string) { mode(t, filepath.Join(filepath.Dir(key), "identities"), 0o755) }, true},
		{"node key garbage", func(t *testing.T, key string) { write(t, key, []byte("garbage\n")) }, false},
		{"node key empty", func(t *testing.T, key string) { write(t, key, nil) }, false},
		{"node key of another kind", func(t *testing.T, key string) { write(t, key, ecKey(t)) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			testutil.LeakCheck(t)
			d := start(t, opts{})
			id, node := d.own().ID52, d.status().Node.ID
			good := read(t, d.nodeKey())
			d.stop()
			c.spoil(t, d.nodeKey())
			spoilt := read(t, d.nodeKey())

			d = start(t, opts{home: d.home})
			d.wantLocked(node)
			if got := read(t, d.nodeKey()); string(got) != string(spoilt) {
				t.Fatal("the locked daemon changed the key's file")
			}
			problem := d.status().Problems[0]
			if c.command {
				d.runFix(problem.Fix)
			} else {
				wantText(t, problem.Fix, "restore the file "+d.nodeKey()+" from a backup", "then: "+d.reloadCommand())
				if _, err := d.reload(); api.CodeOf(err) != api.CodeLocked {
					t.Fatalf("a reload without a mend: %s", full(err))
				}
				if err := os.Remove(d.nodeKey()); err != nil {
					t.Fatal(err)
				}
				write(t, d.nodeKey(), good)
			}
			d.mustReload()
			if h, err := d.c.Hello(limited(t)); err != nil || h.Locked || h.Node != node {
				t.Errorf("after the mend hello says %+v, %v; the node was %s", h, err, node)
			}
			if p := d.status().Problems; len(p) != 0 {
				t.Errorf("after the mend status tells %+v", p)
			}
			if got := d.own().ID52; got != id {
				t.Errorf("after the mend the identity is %s, it was %s", got, id)
			}
			if got := read(t, d.nodeKey()); string(got) != string(good) {
				t.Error("the node has another key's file than before")
			}
			wantEcho(t, d.c, api.TargetSelf)
		})
	}
}

// wantLocked asks a locked daemon everything.
func (d *testDaemon) wantLocked(node string) {
	d.t.Helper()
	t := d.t
	h, err := d.c.Hello(limited(t))
	if err != nil || !h.Locked || h.Node != "" {
		t.Fatalf("hello: %+v, %s", h, full(err))
	}
	e := wantNoEcho(t, d.c, api.TargetSelf, api.CodeLocked)
	s := verb[api.Status](t, d.c, api.VerbDaemonStatus, nil)
	if len(s.Problems) == 0 || !s.Node.Locked || len(s.Node.Addresses) != 0 || s.Node.ID != "" {
		t.Fatalf("status: %+v", s)
	}
	p := s.Problems[0]
	wantText(t, p.Text, filepath.Join(d.home, "keystore"), "refused")
	wantText(t, e.Message, p.Text)
	wantText(t, e.Hint, p.Fix)
	wantText(t, d.log.String(), "locked")
	_, err = d.c.Stream(limited(t), to(api.TargetSelf, api.ProtocolEcho, nil))
	wantCode(t, err, api.CodeLocked)
	for _, v := range api.Verbs() {
		if v.Owned && v.Files == 0 {
			refused(t, d.c, api.CodeLocked, v.Name, nil)
		}
	}
}

func (d *testDaemon) identityKey(id string) string {
	return filepath.Join(d.home, "keystore", "identities", strconv.Itoa(os.Geteuid()), id+".key")
}

// One identity's refused key takes nobody else offline, and is never made anew.
func TestRefusedIdentityKey(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	work := verb[api.Identity](t, bob.c, api.VerbIdentityNew, api.NameArgs{Name: "work"})
	ticket := verb[api.Invitation](t, bob.as("work"), api.VerbContactInvite, nil).Ticket
	verb[api.Contact](t, alice.c, api.VerbContactAdd, api.ContactAddArgs{Name: "work", Ticket: ticket})
	wantEcho(t, alice.c, "work")
	key := bob.identityKey(work.ID52)
	good := read(t, key)
	bob.stop()
	mode(t, key, 0o640)

	bob = start(t, opts{home: bob.home})
	wantEcho(t, alice.c, "bob")
	wantNoEcho(t, alice.c, "work", api.CodeOffline)
	wantNoEcho(t, bob.as("work"), api.TargetSelf, api.CodeLocked)
	got := verb[api.Identity](t, bob.as("work"), api.VerbIdentityShow, nil)
	if got.ID52 != work.ID52 || got.Online || got.Problem == "" {
		t.Fatalf("the refused identity is shown as %+v", got)
	}
	wantText(t, got.Problem, key, "0640")
	if p := bob.status().Problems; len(p) != 1 || p[0].Fix != got.Fix {
		t.Errorf("status tells %+v", p)
	}
	refused(t, bob.c, api.CodeLocked, api.VerbIdentityOnline, api.IdentityArgs{Identity: "work"})
	if n := len(verb[[]api.Identity](t, bob.c, api.VerbIdentityList, nil)); n != 2 {
		t.Errorf("there are %d identities, want 2", n)
	}

	bob.runFix(got.Fix)
	if r := bob.mustReload(); len(r.Online) != 1 || r.Online[0].Name != "work" || r.Online[0].ID52 != work.ID52 || !r.Online[0].Online {
		t.Errorf("the reload tells %+v", r)
	}
	wantEcho(t, alice.c, "work")
	if string(read(t, key)) != string(good) {
		t.Error("the key is another one")
	}
}

// What lies in a user's folder and is no key is told to that user.
func TestStrayFileInOwnKeyFolderIsTold(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	stray := d.identityKey(d.own().ID52) + ".bak"
	write(t, stray, []byte("x"))
	d.mustReload()
	p := d.status().Problems
	if len(p) != 1 || !strings.Contains(p[0].Text, stray) {
		t.Fatalf("status tells %+v", p)
	}
	wantEcho(t, d.c, api.TargetSelf)
	if err := os.Remove(stray); err != nil {
		t.Fatal(err)
	}
	d.mustReload()
	if p := d.status().Problems; len(p) != 0 {
		t.Errorf("status still tells %+v", p)
	}
}

// With only refused keys a user gets none anew, but the way to mend them.
func TestOnlyKeyRefusedIsNotReplaced(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	id := d.own().ID52
	d.stop()
	folder := filepath.Dir(d.identityKey(id))
	mode(t, folder, 0o755)
	d = start(t, opts{home: d.home})
	e := wantNoEcho(t, d.c, api.TargetSelf, api.CodeLocked)
	wantText(t, e.Hint, "chmod 700 "+folder)
	refused(t, d.c, api.CodeLocked, api.VerbIdentityList, nil)
	p := d.status().Problems
	if len(p) != 1 {
		t.Fatalf("status tells %+v", p)
	}
	d.runFix(p[0].Fix)
	d.mustReload()
	if got := d.own().ID52; got != id {
		t.Errorf("the identity is %s, it was %s", got, id)
	}
}

// Fixes can be pasted wherever the home is.
func TestFixOfAHomeWithSpaces(t *testing.T) {
	testutil.LeakCheck(t)
	home := filepath.Join(newHome(t), "my home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	d := start(t, opts{home: home})
	d.stop()
	mode(t, d.nodeKey(), 0o644)
	d = start(t, opts{home: home})
	fix := d.status().Problems[0].Fix
	d.runFix(fix)
	_, reload, _ := strings.Cut(fix, " && ")
	out, err := exec.Command("sh", "-c", `fastn() { printf '%s|' "$@"; }; `+reload).Output()
	if err != nil || string(out) != "--home|"+home+"|daemon|reload|" {
		t.Errorf("a shell reads the reload as %q, %v", out, err)
	}
}
