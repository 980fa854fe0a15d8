package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// What is gone after a stop is told until somebody has seen it.
func TestLossesAreTold(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(t *testing.T, home string)
		text string
	}{
		"store missing":   {func(t *testing.T, home string) { removeStore(t, home) }, "the store was missing"},
		"store truncated": {func(t *testing.T, home string) { truncateStore(t, home) }, "the store was damaged"},
		"node key missing": {func(t *testing.T, home string) {
			if err := os.Remove(filepath.Join(home, "keystore", "node.key")); err != nil {
				t.Fatal(err)
			}
		}, "another was made"},
	} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			d := start(t, opts{})
			d.own()
			if got := d.status().Problems; len(got) != 0 {
				t.Fatalf("problems before: %+v", got)
			}
			d.stop()
			c.lose(t, d.home)
			d = d.again(t, opts{})
			problem := func() bool {
				p := d.status().Problems
				return len(p) > 0 && strings.Contains(p[0].Text, c.text) && strings.Contains(p[0].Fix, "reload")
			}
			if !problem() {
				t.Fatalf("problems: %+v", d.status().Problems)
			}
			d = d.again(t, opts{})
			if !problem() {
				t.Fatalf("after another start: %+v", d.status().Problems)
			}
			d.mustReload()
			if p := d.status().Problems; len(p) != 0 {
				t.Errorf("after a reload: %+v", p)
			}
		})
	}
}

func removeStore(t *testing.T, home string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(home, store.File+"*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

func truncateStore(t *testing.T, home string) {
	t.Helper()
	if err := os.Truncate(filepath.Join(home, store.File), 5000); err != nil {
		t.Fatal(err)
	}
}

// An identity whose key file is gone is offline and says so; no other is made,
// and it can be given up.
func TestMissingKeyIsTold(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	own := d.own()
	d.stop()
	key := d.identityKey(own.ID52)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	d = d.again(t, opts{})
	_, err := d.c.Call(limited(t), to(api.TargetSelf, api.ProtocolEcho, hello))
	e := wantCode(t, err, api.CodeLocked)
	wantText(t, e.Message, own.Name, key, "missing")
	p := d.status().Problems
	if len(p) == 0 || !strings.Contains(p[0].Text, key) {
		t.Errorf("problems: %+v", p)
	}
	verb[struct{}](t, d.c, api.VerbIdentityRemove, api.IdentityArgs{Identity: own.Name})
	if now := d.own(); now.ID52 == own.ID52 || now.Name != own.Name {
		t.Errorf("the next identity is %+v", now)
	}
}

// An administrator whose budget is used up can still look and act.
func TestSpareConnections(t *testing.T) {
	var s spare
	full := api.Errorf(api.CodeOverBudget, "full")
	var releases []func()
	for range spareConnections {
		release, err := s.take(full)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	if _, err := s.take(full); err != full {
		t.Errorf("one more than there are: %v", err)
	}
	releases[0]()
	if _, err := s.take(full); err != nil {
		t.Errorf("one was given back: %v", err)
	}
}
