package daemon

import (
	"crypto/ed25519"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/keystore"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

func newFile(t testing.TB, content []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	write(t, path, content)
	return open(t, path)
}

func open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// withFile does a verb that takes a descriptor.
func (d *testDaemon) withFile(name string, args any, f *os.File) error {
	d.t.Helper()
	return d.c.Verb(limited(d.t), name, args, nil, f)
}

func TestIdentityNewRenameRemove(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	first := d.own()
	work := verb[api.Identity](t, d.c, api.VerbIdentityNew, api.NameArgs{Name: "work"})
	if !work.Online || work.Owner != first.Owner || !contains(work.Protocols, api.ProtocolEcho) {
		t.Errorf("new: %+v", work)
	}
	for _, name := range []string{"work", first.Name} {
		refused(t, d.c, api.CodeConflict, api.VerbIdentityNew, api.NameArgs{Name: name})
	}
	for _, name := range []string{"", "two words", api.TargetSelf, first.ID52} {
		refused(t, d.c, api.CodeBadRequest, api.VerbIdentityNew, api.NameArgs{Name: name})
		refused(t, d.c, api.CodeBadRequest, api.VerbIdentityRename, api.RenameArgs{Name: "work", To: name})
	}
	if got := verb[api.Identity](t, d.c, api.VerbIdentityRename, api.RenameArgs{Name: "work", To: "job"}); got.ID52 != work.ID52 || got.Name != "job" {
		t.Errorf("rename: %+v", got)
	}
	refused(t, d.c, api.CodeNotFound, api.VerbIdentityShow, api.IdentityArgs{Identity: "work"})
	d = d.again(t, opts{})
	if got := verb[api.Identity](t, d.c, api.VerbIdentityShow, api.IdentityArgs{Identity: "job"}); got.ID52 != work.ID52 {
		t.Errorf("after a restart: %+v", got)
	}
	refused(t, d.c, api.CodeBadRequest, api.VerbIdentityRemove, nil)
	verb[struct{}](t, d.c, api.VerbIdentityRemove, api.IdentityArgs{Identity: "job"})
	refused(t, d.c, api.CodeNotFound, api.VerbIdentityShow, api.IdentityArgs{Identity: work.ID52})
	if _, err := os.Lstat(d.identityKey(work.ID52)); err == nil {
		t.Error("the removed identity's key is still there")
	}
	d = d.again(t, opts{})
	if got := verb[[]api.Identity](t, d.c, api.VerbIdentityList, nil); len(got) != 1 || got[0].ID52 != first.ID52 {
		t.Errorf("after a restart: %+v", got)
	}
}

// A removed identity leaves nothing to whoever gets its name or its key later.
func TestRemovedIdentityTakesAllWithIt(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.own()
	verb[api.Identity](t, d.c, api.VerbIdentityNew, api.NameArgs{Name: "work"})
	work := d.as("work")
	verb[api.Contact](t, work, api.VerbContactAdd, api.ContactAddArgs{Name: "friend", ID: p2ptest.Key(t).ID().String()})
	verb[api.Grant](t, work, api.VerbGrantAdd, api.GrantArgs{Who: "friend", Protocol: "x"})
	key := newFile(t, nil)
	if err := d.withFile(api.VerbIdentityExport, api.IdentityArgs{Identity: "work"}, key); err != nil {
		t.Fatal(full(err))
	}
	verb[struct{}](t, d.c, api.VerbIdentityRemove, api.IdentityArgs{Identity: "work"})
	if err := d.withFile(api.VerbIdentityImport, api.NameArgs{Name: "work"}, open(t, key.Name())); err != nil {
		t.Fatal(full(err))
	}
	wantNames(t, "contacts", contactNames(t, work))
	if g := verb[[]api.Grant](t, work, api.VerbGrantList, nil); len(g) != 0 {
		t.Errorf("grants: %+v", g)
	}
}

func TestExportAndImport(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := start(t, opts{}), start(t, opts{})
	id := alice.own().ID52
	key := newFile(t, nil)
	if err := alice.withFile(api.VerbIdentityExport, nil, key); err != nil {
		t.Fatal(full(err))
	}
	got, err := keystore.ParsePrivate(open(t, key.Name()))
	if err != nil || got.ID().String() != id {
		t.Fatalf("exported %s, %v; want %s", got.ID(), err, id)
	}
	if err := bob.withFile(api.VerbIdentityImport, api.NameArgs{Name: "mine"}, open(t, key.Name())); err != nil {
		t.Fatal(full(err))
	}
	if got := verb[api.Identity](t, bob.c, api.VerbIdentityShow, api.IdentityArgs{Identity: "mine"}); got.ID52 != id {
		t.Errorf("imported %+v, want %s", got, id)
	}
	e := wantCode(t, bob.withFile(api.VerbIdentityImport, api.NameArgs{Name: "twice"}, open(t, key.Name())), api.CodeConflict)
	wantText(t, e.Message, "already")
	for _, secret := range []string{hex.EncodeToString(got.Seed()), string(keystore.EncodePEM(got))[30:60]} {
		if strings.Contains(alice.log.String()+bob.log.String(), secret) {
			t.Error("the key is in the log")
		}
	}
}

func TestImportOfTheRustCratesKey(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	seed := noise(ed25519.SeedSize)
	key, err := identity.KeyFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	r, w := pipe(t, unix.O_NONBLOCK) // as "fastn id import NAME -" makes it
	if _, err := w.WriteString(hex.EncodeToString(seed) + "\n"); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if err := d.withFile(api.VerbIdentityImport, api.NameArgs{Name: "rust"}, r); err != nil {
		t.Fatal(full(err))
	}
	got := verb[api.Identity](t, d.c, api.VerbIdentityShow, api.IdentityArgs{Identity: "rust"})
	if got.ID52 != key.ID().String() {
		t.Errorf("imported %s, want %s", got.ID52, key.ID())
	}
}

// pipe is made by hand: os.Pipe's ends become blocking when they are passed on.
func pipe(t testing.TB, flags int) (r, w *os.File) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|flags); err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

func TestImportRefusesWhatIsNoKey(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.own()
	one, two := keystore.EncodePEM(p2ptest.Key(t)), keystore.EncodePEM(p2ptest.Key(t))
	for name, content := range map[string][]byte{
		"empty": nil, "words": []byte("hello\n"), "another kind": ecKey(t), "two keys": append(one, two...),
		"63 digits": []byte(strings.Repeat("a", 63)), "huge": noise(1 << 20),
	} {
		e := wantCode(t, d.withFile(api.VerbIdentityImport, api.NameArgs{Name: "x"}, newFile(t, content)), api.CodeBadRequest)
		if e.Hint == "" {
			t.Errorf("%s: no hint with %q", name, e.Message)
		}
	}
	// Nobody writes to these, and the daemon must not wait.
	blocking, _ := pipe(t, 0)
	wantText(t, wantCode(t, d.withFile(api.VerbIdentityImport, api.NameArgs{Name: "x"}, blocking), api.CodeBadRequest).Message, "non-blocking")
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	wantCode(t, d.withFile(api.VerbIdentityImport, api.NameArgs{Name: "x"}, dir), api.CodeBadRequest)
	if n := len(verb[[]api.Identity](t, d.c, api.VerbIdentityList, nil)); n != 1 {
		t.Errorf("%d identities, want 1", n)
	}
}

// A key is written only where nobody else can read it.
func TestExportRefusesOtherFiles(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.own()
	export := func(f *os.File) *api.Error {
		t.Helper()
		return wantCode(t, d.withFile(api.VerbIdentityExport, nil, f), api.CodeBadRequest)
	}
	for _, m := range []os.FileMode{0o644, 0o620, 0o601} {
		f := newFile(t, nil)
		mode(t, f.Name(), m)
		wantText(t, export(f).Message, "others")
		if len(read(t, f.Name())) != 0 {
			t.Errorf("the key was written to a file of mode %v", m)
		}
	}
	_, w := pipe(t, 0)
	export(w)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	export(null)
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	export(dir)
	toRead, err := os.Open(newFile(t, nil).Name())
	if err != nil {
		t.Fatal(err)
	}
	defer toRead.Close()
	wantText(t, export(toRead).Message, "not open for writing")
	// What is longer than a key would keep its tail.
	used := newFile(t, noise(4096))
	wantText(t, export(used).Message, "empty")
	if len(read(t, used.Name())) != 4096 {
		t.Error("a file with something in it was written to")
	}
	// Another user's file, which that user could open again.
	if os.Geteuid() == 0 {
		theirs := newFile(t, nil)
		if err := theirs.Chown(1001, -1); err != nil {
			t.Fatal(err)
		}
		wantText(t, export(theirs).Message, "not yours")
	}
}
