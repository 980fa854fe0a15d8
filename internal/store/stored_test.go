package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// A file of the schema before rows were sealed opens with all that is in it: it is
// neither damaged nor somebody else's. testdata/v1.db was written by the program of
// that time.
func TestStoredSchema(t *testing.T) {
	testutil.LeakCheck(t)
	dir := t.TempDir()
	old, err := os.ReadFile("testdata/v1.db")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, File), old, 0o600))
	for range 2 { // as it was, and as the first start left it
		s, err := Open(t.Context(), dir, nil)
		must(t, err)
		if r := s.Recovery(); r != nil {
			t.Fatalf("repaired: %+v", r)
		}
		contacts := s.Contacts(id(1))
		if len(contacts) != 20 || len(s.Grants(id(1))) != 20 || !s.Blocked(id(1), id(99)) {
			t.Errorf("%d contacts, %d grants, blocked %v", len(contacts), len(s.Grants(id(1))), s.Blocked(id(1), id(99)))
		}
		for _, c := range contacts {
			if nodes := s.Nodes(id(1), c.ID); len(nodes) != 1 {
				t.Errorf("%s lives at %v", c.Name, nodes)
			}
		}
		if i, ok := s.IdentityInfo(id(1)); !ok || i.Name != "alice" || i.UID != 1000 || !i.Online {
			t.Errorf("the identity is %+v, %v", i, ok)
		}
		if port, _ := s.Meta("port"); port != "4100" {
			t.Errorf("the port is %q", port)
		}
		must(t, s.Close())
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, "*.damaged-*")); len(aside) != 0 {
		t.Errorf("moved aside: %q", aside)
	}
}
