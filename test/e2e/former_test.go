package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

const (
	// former is the last commit with databases, wire and socket of the first kind: without
	// digests and without messages.
	former = "b05f1a4a370110e629b609e2e6396f2e5e06f6c4"
	// formerVersion is below that of the package under test.
	formerVersion = "0.0.9"
)

// TestUpgradeOfFormerPackage installs a package that was built from an older commit,
// and upgrades it to today's.
func TestUpgradeOfFormerPackage(t *testing.T) {
	if !testutil.Torture() {
		t.Skip("builds an older package: make torture")
	}
	if os.Geteuid() != 0 {
		t.Skip("booting machines needs root")
	}
	file := formerPackage(t)
	onEach(t, func(t *testing.T, s suite) { upgradeFormer(t, s, file) })
}

// formerPackage builds it. Skips where the clone has not so much history, or what it
// needs cannot be had.
func formerPackage(t *testing.T) (file string) {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "git", "cat-file", "-e", former+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("this clone has no commit %s: %s", former, out)
	}
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	tar := filepath.Join(t.TempDir(), "former.tar")
	err = errors.Join(run(t.Context(), top, "git", "archive", "--output", tar, former), run(t.Context(), dir, "tar", "-xf", tar))
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), dir, "go", "mod", "download"); err != nil {
		t.Skipf("what %s depends on cannot be had: %v", former, err)
	}
	if err := run(t.Context(), dir, "make", "deb", "VERSION="+formerVersion, "ARCH="+runtime.GOARCH); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, fmt.Sprintf("build/deb/fastn_%s_%s.deb", formerVersion, runtime.GOARCH))
}

func upgradeFormer(t *testing.T, s suite, file string) {
	north, south := boot(t, s, "north"), boot(t, s, "south")
	nspawn.Link(north, south, northAddress, southAddress)
	if r := apt(north, "update"); r.Code != 0 {
		t.Fatalf("%v", r)
	}
	upgrade(t, north, formerVersion, putIn(north, file))
	install(t, south)
	addUser(north, "alice", "fastn")
	addUser(north, "nina", "fastn")
	addUser(south, "bob", "fastn")
	addUser(south, "eve", "fastn")
	for _, m := range []*nspawn.Machine{north, south} {
		enable(m)
	}
	exchangeTicket(t, north, south)
	callAcross(t, north, south)
	north.MustAs("alice", "fastn", "id", "new", "work")
	north.MustAs("alice", "fastn", "contact", "add", "carl", nobodysID, "--address", status(t, south).Node.Addresses[0])
	north.MustAs("alice", "fastn", "contact", "block", "carl")
	north.MustAs("alice", "fastn", "grant", "add", "bob", "Notes")
	north.MustAs("alice", "fastn", "grant", "add", "contacts", "News")
	ticket := north.MustAs("nina", "fastn", "--quiet", "invite", "--for", "eve")
	before := possessions(t, north)

	upgradeUnderLoad(t, north, "nina", south.Must("dpkg-query", "--show", "--showformat=${Version}", "fastn"), "fastn")
	if after := possessions(t, north); after != before {
		t.Errorf("after the upgrade\n%v\nbefore\n%v", after, before)
	}
	if p := status(t, north).Problems; len(p) > 0 {
		t.Errorf("problems after the upgrade: %+v", p)
	}
	callAcross(t, north, south)
	if r := south.RunInput("eve", ticket+"\n", "fastn", "contact", "add", "nina", "-"); r.Code != 0 {
		t.Errorf("a ticket from before the upgrade: %v", r)
	}
	delivered(north, "alice", "bob", "what is new")
	delivered(south, "eve", "nina", "hello")
	before = possessions(t, north)
	north.Must("systemctl", "restart", "fastnd.service")
	if after := possessions(t, north); after != before {
		t.Errorf("after another start\n%v\nbefore\n%v", after, before)
	}
	callAcross(t, north, south)
}

// possessions are what an upgrade must keep: the node, and each user's identities,
// contacts, grants.
func possessions(t *testing.T, m *nspawn.Machine) string {
	t.Helper()
	all := []any{status(t, m).Node.ID}
	for _, user := range []string{"alice", "nina"} {
		for _, i := range get[[]api.Identity](t, m, user, api.VerbIdentityList, struct{}{}) {
			all = append(all, i.Name, i.ID52, i.Online)
		}
		all = append(all, get[[]api.Contact](t, m, user, api.VerbContactList, struct{}{}),
			get[[]api.Grant](t, m, user, api.VerbGrantList, struct{}{}))
	}
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
