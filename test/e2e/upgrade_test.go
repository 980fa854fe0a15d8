package e2e

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// upgradeUnderLoad installs what apt finds under name while user's programs go on.
func upgradeUnderLoad(t *testing.T, m *nspawn.Machine, user, version, name string) {
	t.Helper()
	socket, from := controlSocket(m), cursor(m)
	load := startProbe(t, m, user, "hammer")
	load.expect("ready")
	leave := crowd(t, m, user)
	upgrade(t, m, version, name)
	outcomes := leave()
	load.stdin.Close()
	var answered, cut int
	_, scanErr := fmt.Sscan(load.line(), &answered, &cut)
	if err := load.wait(); err != nil || scanErr != nil {
		t.Fatalf("a client was refused during the upgrade: %v", err)
	}
	if answered < 100 {
		t.Errorf("only %d calls were answered meanwhile; this shows nothing", answered)
	}
	// The one that was in flight when the daemon stopped may have to try again.
	if cut > 1 {
		t.Errorf("%d requests were cut off", cut)
	}
	if len(outcomes) != 1 || outcomes["ok"] < 100 {
		t.Errorf("outcomes of calls during the upgrade: %v", outcomes)
	}
	if got := starts(t, m, from); got != 1 {
		t.Errorf("the upgrade started the daemon %d times, want once", got)
	}
	if got := controlSocket(m); got != socket {
		t.Error("the upgrade made another control socket")
	}
	t.Logf("%d calls without a library and %d with service/client answered during the upgrade", answered, outcomes["ok"])
}

// upgrade installs what apt finds under name, which must be version.
func upgrade(t *testing.T, m *nspawn.Machine, version, name string) {
	t.Helper()
	if r := apt(m, "install", name); r.Code != 0 {
		t.Fatalf("%v", r)
	}
	if got := m.Must("dpkg-query", "--show", "--showformat=${Version}", "fastn"); got != version {
		t.Fatalf("version %s is installed, not %s", got, version)
	}
}

const upgraded = "99.0.0"

// nextPackage makes a package of a later version: the same programs under another
// number, which is all that dpkg and systemd see.
func nextPackage(t *testing.T, s suite) (file string) {
	t.Helper()
	packages, err := filepath.Glob(filepath.Join(s.repo, "pool/fastn_*_"+runtime.GOARCH+".deb"))
	if err != nil || len(packages) != 1 {
		t.Fatalf("packages %v, %v", packages, err)
	}
	dir := t.TempDir()
	tree, newer := filepath.Join(dir, "tree"), filepath.Join(dir, "fastn.deb")
	for _, args := range [][]string{
		{"dpkg-deb", "--raw-extract", packages[0], tree},
		{"sed", "-i", "s/^Version: .*/Version: " + upgraded + "/", filepath.Join(tree, "DEBIAN/control")},
		{"dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, newer},
	} {
		if err := run(t.Context(), dir, args...); err != nil {
			t.Fatal(err)
		}
	}
	return newer
}

// putIn puts a package into the machine and returns the name by which apt finds it.
func putIn(m *nspawn.Machine, file string) (name string) {
	m.CopyIn(file, "/root/fastn.deb", 0o644)
	return "/root/fastn.deb"
}
