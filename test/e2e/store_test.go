package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

const (
	storeFile    = stateDir + "/fastn.db"
	pageSize     = 4096
	contactCount = 12
)

// damagedStore: whatever becomes of the database, the daemon starts, once, with
// every key, all that can be read, and a report of what cannot.
func damagedStore(t *testing.T, m *nspawn.Machine) {
	m.MustAs("alice", "fastn", "contact", "add", "bob", nobodysID)
	m.MustAs("alice", "fastn", "grant", "add", "bob", "Notes")
	m.MustAs("alice", "sh", "-c", fmt.Sprintf(`for i in $(seq %d); do fastn id new friend$i && fastn contact add friend$i $(fastn id show friend$i --json | sed 's/.*"id52": *"\([^"]*\)".*/\1/') || exit 1; done`, contactCount-1))
	alice := get[api.Identity](t, m, "alice", api.VerbIdentityShow, api.IdentityArgs{Identity: "alice"})
	m.Must("systemctl", "stop", "fastnd.service")
	s := storeTest{alice: alice.ID52, keys: m.Must("sh", "-c", "find /var/lib/fastn/keystore -type f | sort | xargs sha256sum")}
	m.Must("cp", "--preserve=all", storeFile, "/root/backup.db")
	s.node = status(t, m).Node.ID

	cases := []storeCase{
		{name: "a byte of a contact", spoil: flipName, told: "lost are 1 contacts", contacts: contactCount - 1},
		{name: "a byte of the first page", spoil: flipFirstPage, told: "nothing of contacts or grants was lost", contacts: contactCount},
		{name: "half of the file", spoil: halve, told: "lost are", contacts: -1},
		{name: "no content", spoil: func(string) error { return os.Truncate(m.Path(storeFile), 0) }, told: "the file is empty", contacts: 0},
		{name: "another program's database", spoil: foreignDatabase, told: "not those of this program", contacts: 0},
	}
	if testutil.Torture() {
		cases = append(cases,
			storeCase{name: "garbage", spoil: garbage, told: "lost are", contacts: 0},
			storeCase{name: "no first page", spoil: func(p string) error { return writeAt(p, 0, make([]byte, pageSize)) },
				told: "nothing of contacts or grants was lost", contacts: contactCount})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { s.run(t, m.For(t), c) })
	}
	t.Run("a newer schema", func(t *testing.T) { s.newer(t, m.For(t)) })
	t.Run("the log of a killed daemon", func(t *testing.T) { s.log(t, m.For(t)) })
	restoreStore(m)
}

type storeTest struct{ node, keys, alice string }

// list is one of alice's, named by the id: names may be gone.
func (s storeTest) list(m *nspawn.Machine, what string) string {
	return m.MustAs("alice", "fastn", "--as", s.alice, what, "list", "--json")
}

type storeCase struct {
	name     string
	spoil    func(path string) error // of the closed database
	told     string
	contacts int // that are left; -1 for any number
}

func restoreStore(m *nspawn.Machine) {
	m.Must("systemctl", "reset-failed", "fastn.socket", "fastnd.service") // the test's own starts do not count
	m.Must("systemctl", "stop", "fastnd.service")
	m.Must("sh", "-c", "rm -f /var/lib/fastn/fastn.db-* /var/lib/fastn/fastn.db.open /var/lib/fastn/fastn.db.damaged-* && cp --preserve=all /root/backup.db "+storeFile)
}

func (s storeTest) run(t *testing.T, m *nspawn.Machine, c storeCase) {
	restoreStore(m)
	if err := c.spoil(m.Path(storeFile)); err != nil {
		t.Fatal(err)
	}
	spoilt := m.Must("sh", "-c", "sha256sum <"+storeFile)
	from := cursor(m)
	s.startOnce(t, m, from)
	fix := toldEverywhere(t, m, from, c.told, "the store was damaged")
	aside := m.Must("sh", "-c", "ls /var/lib/fastn/fastn.db.damaged-*Z")
	if got := m.Must("sh", "-c", "sha256sum <"+aside); got != spoilt && c.name != "another program's database" {
		t.Errorf("%s is not the damaged file as it was", aside)
	}
	if p := status(t, m).Problems[0]; !strings.Contains(p.Text, aside) {
		t.Errorf("the status does not name %s: %+v", aside, p)
	}
	if n := strings.Count(s.list(m, "contact"), `"name"`); n != c.contacts && c.contacts >= 0 {
		t.Errorf("%d contacts are left, want %d", n, c.contacts)
	}
	if c.contacts == contactCount && !strings.Contains(s.list(m, "grant"), "Notes") {
		t.Error("the grant is gone")
	}
	// The next start tells of it still, until somebody acknowledged it.
	m.Must("systemctl", "restart", "fastnd.service")
	if len(status(t, m).Problems) == 0 {
		t.Error("after another start nothing is told")
	}
	_, command, _ := strings.Cut(fix, "acknowledge it: ")
	m.Must("sh", "-c", command)
	m.Eventually(soon, "the problem to be acknowledged", func() bool { return len(status(t, m).Problems) == 0 })
}

// startOnce has several clients start the daemon and checks what must be true
// with every store.
func (s storeTest) startOnce(t *testing.T, m *nspawn.Machine, from string) {
	t.Helper()
	m.RunAs("alice", "sh", "-c", "for i in 1 2 3 4 5 6; do fastn status >/dev/null 2>&1 & done; wait")
	if got := starts(t, m, from); got != 1 {
		t.Errorf("the daemon was started %d times, want once", got)
	}
	stillActive(t, m)
	if got := m.Must("sh", "-c", "find /var/lib/fastn/keystore -type f | sort | xargs sha256sum"); got != s.keys {
		t.Errorf("keys:\n%s\nbefore:\n%s", got, s.keys)
	}
	if got := status(t, m).Node; !got.Locked && got.ID != s.node {
		t.Errorf("the node is %s, was %s", got.ID, s.node)
	}
}

// newer: what a later version wrote is not touched.
func (s storeTest) newer(t *testing.T, m *nspawn.Machine) {
	restoreStore(m)
	const userVersionAt = 60 // see the file format's table of the header
	if err := writeAt(m.Path(storeFile), userVersionAt, binary.BigEndian.AppendUint32(nil, 99)); err != nil {
		t.Fatal(err)
	}
	// As after a newer program, which would have noted its own.
	m.Must("rm", "-f", storeFile+".schema")
	from := cursor(m)
	s.startOnce(t, m, from)
	if r := m.RunAs("alice", "fastn", "contact", "list"); r.Code == 0 || !strings.Contains(r.Err, "newer schema") {
		t.Errorf("%v", r)
	}
	fix := toldEverywhere(t, m, from, "newer schema", "99")
	if got := m.Run("sh", "-c", "ls /var/lib/fastn/*damaged*"); got.Code == 0 {
		t.Errorf("moved aside: %s", got.Out)
	}
	m.Must("sh", "-c", "rm -f /var/lib/fastn/fastn.db-* && cp --preserve=all /root/backup.db "+storeFile)
	_, command, _ := strings.Cut(fix, ", then: ")
	m.Must("sh", "-c", command)
	m.Eventually(soon, "the fix to help", func() bool { s := status(t, m); return !s.Node.Locked && len(s.Problems) == 0 })
}

// log: changes that were confirmed and whose record on the disk went bad are gone,
// which is said.
func (s storeTest) log(t *testing.T, m *nspawn.Machine) {
	restoreStore(m)
	for i := range 8 {
		m.MustAs("alice", "fastn", "grant", "add", "bob", fmt.Sprintf("Late%d", i))
	}
	m.Must("systemctl", "kill", "--signal=SIGKILL", "fastnd.service")
	m.Must("systemctl", "stop", "fastnd.service")
	path := m.Path(storeFile + "-wal")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeAt(path, info.Size()/2, []byte("damage")); err != nil {
		t.Fatal(err)
	}
	from := cursor(m)
	s.startOnce(t, m, from)
	toldEverywhere(t, m, from, "of the last changes", "damaged-")
	if n := strings.Count(s.list(m, "contact"), `"name"`); n != contactCount {
		t.Errorf("%d contacts are left", n)
	}
	m.Must("systemctl", "reload", "fastnd.service")
	m.Eventually(soon, "the reload", func() bool { return len(status(t, m).Problems) == 0 })
}

func writeAt(path string, at int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(b, at)
	return err
}

// flipName changes a letter of the name "bob", wherever it is: table and index.
func flipName(path string) error { return replaceIn(path, "bob", "bOb") }

func flipFirstPage(path string) error {
	return replaceIn(path, "CREATE TABLE contacts", "CREATE TABLE contactz")
}

func replaceIn(path, old, changed string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	bad := bytes.ReplaceAll(b, []byte(old), []byte(changed))
	if bytes.Equal(bad, b) {
		return fmt.Errorf("%q is not in %s", old, path)
	}
	return writeAt(path, 0, bad)
}

func halve(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()/pageSize/2*pageSize)
}

func garbage(path string) error { return writeAt(path, 0, bytes.Repeat([]byte("garbage\n"), 100_000)) }

func foreignDatabase(path string) error {
	dir, err := os.MkdirTemp("", "fastn-foreign-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	other := filepath.Join(dir, "recipes.db")
	db, err := sqlite.Open(context.Background(), other, sqlite.Options{Migrations: []sqlite.Migration{{Name: "recipes", SQL: "CREATE TABLE recipes (name, text)"}}})
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	b, err := os.ReadFile(other)
	if err != nil {
		return err
	}
	if err := os.Truncate(path, 0); err != nil {
		return err
	}
	return writeAt(path, 0, b)
}
