package roster

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

func TestFirstUseMakesOneKey(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	ids := make([]identity.ID, 100)
	var wg sync.WaitGroup
	// The first keeps the others waiting, who all have seen that there is none.
	r.making.Lock()
	var begun atomic.Int32
	for i := range ids {
		wg.Go(func() {
			begun.Add(1)
			p, err := r.Default(t.Context(), alice, "alice")
			if err != nil || p.Name != "alice" || p.UID != alice || !p.Online {
				t.Errorf("%+v, %v", p, err)
			}
			ids[i] = p.ID
		})
	}
	for begun.Load() < int32(len(ids)) {
		runtime.Gosched()
	}
	r.making.Unlock()
	wg.Wait()
	if ids = slices.Compact(ids); len(ids) != 1 || d.made != 1 {
		t.Errorf("%d identities, %d keys made", len(ids), d.made)
	}
	if k := d.names[ids[0]]; k != (kept{alice, "alice", true}) {
		t.Errorf("kept %+v", k)
	}
	if e := d.keys[ids[0]]; e.UID != alice {
		t.Errorf("key of uid %d", e.UID)
	}
	p, err := r.Default(t.Context(), bob, "alice") // another user of the same name
	if err != nil || p.ID == ids[0] {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestDefaultChooses(t *testing.T) {
	for name, c := range map[string]struct {
		have []string
		want string
		code api.Code
	}{
		"the only one":              {[]string{"work"}, "work", ""},
		"named after the user":      {[]string{"work", "alice", "zoo"}, "alice", ""},
		"several, none of the name": {[]string{"work", "home"}, "", api.CodeBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			r, _ := start(d)
			for _, n := range c.have {
				create(t, r, alice, n)
			}
			p, err := r.Default(t.Context(), alice, "alice")
			wantCode(t, err, c.code)
			if p.Name != c.want || d.made != len(c.have) {
				t.Errorf("chose %q, %d keys made", p.Name, d.made)
			}
			if e := api.AsError(err); e != nil && !strings.Contains(e.Hint, "fastn --as home") {
				t.Errorf("hint %q", e.Hint)
			}
		})
	}
}

// TestRefusedKeyIsNotReplaced: offline, mended by its owner's admin, and never
// a reason to make another one.
func TestRefusedKeyIsNotReplaced(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	id := create(t, r, alice, "alice").ID
	d.refuse(id)
	r.Load(d.entries())

	p, err := r.Default(t.Context(), alice, "alice")
	if err != nil || p.ID != id || p.Online || d.made != 1 {
		t.Fatalf("%+v, %v, %d keys", p, err, d.made)
	}
	if here, online := r.Here(id); !here || online {
		t.Errorf("here %v, online %v", here, online)
	}
	_, err = r.Delegation(id)
	wantCode(t, err, api.CodeLocked)
	_, err = r.Key(id)
	wantCode(t, err, api.CodeLocked)
	_, err = r.SetOnline(t.Context(), p, true)
	wantCode(t, err, api.CodeLocked)
	e := api.AsError(p.Usable())
	if e == nil || e.Message != "the key of identity alice is refused: mode 0644" || e.Hint != "as root: chmod 0600 the.key" {
		t.Errorf("told %+v", e)
	}

	// It can be renamed; mended it is served as before.
	if p, err = r.Rename(t.Context(), p, "old"); err != nil || p.Online {
		t.Errorf("%+v, %v", p, err)
	}
	d.keys[id] = Entry{UID: alice, ID: id, Key: newKey(t)}
	r.Load(d.entries())
	if p, err := r.Find(alice, "old"); err != nil || !p.Online {
		t.Errorf("after the fix: %+v, %v", p, err)
	}
}

// TestKeysThatCannotBeToldApart: there is no resident, and no new key either.
func TestKeysThatCannotBeToldApart(t *testing.T) {
	refused := errors.New("mode 0755")
	twin := newKey(t).ID()
	for name, entries := range map[string][]Entry{
		"the user's folder": {{UID: alice, Refused: refused, Fix: "chmod 0700 1000"}},
		"one of two owners": {{UID: bob, ID: twin, Refused: refused}, {UID: alice, ID: twin, Refused: refused, Fix: "chmod 0700 1000"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			r := New(node, entries, d, d, ttl, (&clock{}).Now)
			_, err := r.Default(t.Context(), alice, "alice")
			wantCode(t, err, api.CodeLocked)
			if e := api.AsError(err); e != nil && (!strings.Contains(e.Message, "mode 0755") || e.Hint != "as root: chmod 0700 1000") {
				t.Errorf("told %+v", e)
			}
			if d.made != 0 {
				t.Error("another key was made")
			}
			r.Load(nil)
			if _, err := r.Default(t.Context(), alice, "alice"); err != nil || d.made != 1 {
				t.Errorf("after the fix: %v, %d keys", err, d.made)
			}
		})
	}
}

// TestFailedFirstUseLeavesNoKey: each try would add one.
func TestFailedFirstUseLeavesNoKey(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	d.failing = errDisk
	for range 3 {
		if _, err := r.Default(t.Context(), alice, "alice"); !errors.Is(err, errDisk) {
			t.Fatalf("got %v", err)
		}
	}
	if len(d.keys) != 0 || len(r.List(alice)) != 0 {
		t.Errorf("%d keys left, %d identities", len(d.keys), len(r.List(alice)))
	}
	d.failing = nil
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Default(gone, alice, "alice"); err != nil || len(d.keys) != 1 {
		t.Errorf("the caller went away: %v, %d keys", err, len(d.keys))
	}
}

// TestNameFor: user names come from directories that allow anything.
func TestNameFor(t *testing.T) {
	id := newKey(t).ID()
	for user, want := range map[string]string{
		"alice":                  "alice",
		"Alice.O-Neil_2":         "Alice.O-Neil_2",
		`DOMAIN\alice`:           "DOMAINxalice",
		"alice@example.org":      "alicexexample.org",
		"josé":                   "josx",
		"../../etc":              "x.x..xetc",
		"-rf":                    "xrf",
		"a\nb\x00c":              "axbxc",
		"a b;rm -rf $HOME":       "axbxrmx-rfxxHOME",
		"\u202eecila":            "xecila",
		"\xff\xfe":               "xx",
		"":                       "user-",
		"self":                   "user-self",
		strings.Repeat("a", 500): strings.Repeat("a", api.MaxName),
		strings.Repeat("é", 500): strings.Repeat("x", api.MaxName),
		id.String():              "user-" + id.String()[:8],
		id.PeerID().String():     "user-12D3KooW",
	} {
		got := nameFor(user)
		if got != want {
			t.Errorf("%q is named %q, want %q", user, got, want)
		}
		if err := (&Roster{}).free(alice, got); err != nil {
			t.Errorf("%q is named %q: %v", user, got, err)
		}
	}
}

// TestDefaultFollowsChanges: what was found is found again, but not after a change.
func TestDefaultFollowsChanges(t *testing.T) {
	r, _ := start(newDisk())
	find := func() string {
		t.Helper()
		p, err := r.Default(t.Context(), 1, "bob")
		if err != nil {
			t.Fatal(err)
		}
		return p.Name
	}
	first := find()
	p, err := r.Find(1, first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rename(t.Context(), p, "work"); err != nil {
		t.Fatal(err)
	}
	if got := find(); got != "work" {
		t.Errorf("after a rename %s", got)
	}
	if _, err := r.Create(t.Context(), 1, "bob"); err != nil {
		t.Fatal(err)
	}
	if got := find(); got != "bob" {
		t.Errorf("after one named after the user was made, %s", got)
	}
}
