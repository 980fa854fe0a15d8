package roster

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

func TestNames(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	create(t, r, alice, "work")
	create(t, r, bob, "work") // names are the user's own
	id := newKey(t).ID()
	for name, want := range map[string]api.Code{
		"work": api.CodeConflict, "self": api.CodeBadRequest, "": api.CodeBadRequest, "a/b": api.CodeBadRequest,
		"-x": api.CodeBadRequest, id.String(): api.CodeBadRequest, id.PeerID().String(): api.CodeBadRequest,
	} {
		_, err := r.Create(t.Context(), alice, name)
		wantCode(t, err, want)
		_, err = r.Import(t.Context(), alice, name, newKey(t))
		wantCode(t, err, want)
		home := create(t, r, alice, "home")
		_, err = r.Rename(t.Context(), home, name)
		wantCode(t, err, want)
		if err := r.Remove(t.Context(), home); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.keys) != 2 {
		t.Errorf("%d keys after refused names", len(d.keys))
	}
}

// TestNamesUnderRace: of 50 who take a name one gets it.
func TestNamesUnderRace(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	var wg sync.WaitGroup
	for i := range 50 {
		p := create(t, r, alice, fmt.Sprintf("n%02d", i))
		wg.Go(func() { _, _ = r.Rename(t.Context(), p, "wanted") })
		wg.Go(func() { _, _ = r.Create(t.Context(), alice, "wanted") })
	}
	wg.Wait()
	got := names(r.List(alice))
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) || !slices.Contains(got, "wanted") {
		t.Errorf("names %q", got)
	}
}

// TestOthersDoNotExist: what is somebody else's is answered as what is not.
func TestOthersDoNotExist(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	p := create(t, r, alice, "work")
	missing := newKey(t).ID()
	hides := func(theirs, none string) {
		t.Helper()
		_, err1 := r.Find(bob, theirs)
		_, err2 := r.Find(bob, none)
		e1, e2 := api.AsError(err1), api.AsError(err2)
		if e1 == nil || e2 == nil || e1.Code != api.CodeNotFound || e1.Code != e2.Code || e1.Hint != e2.Hint ||
			e1.Message != fmt.Sprintf("you have no identity %q", theirs) || e2.Message != fmt.Sprintf("you have no identity %q", none) {
			t.Errorf("theirs %+v, none %+v", e1, e2)
		}
	}
	hides("work", "nowork")
	hides(p.ID.String(), missing.String())
	hides(p.ID.PeerID().String(), missing.PeerID().String())
	if len(r.List(bob)) != 0 {
		t.Errorf("bob sees %q", names(r.List(bob)))
	}
	for _, how := range []string{"work", p.ID.String(), p.ID.PeerID().String()} {
		if got, err := r.Find(alice, how); err != nil || got.ID != p.ID {
			t.Errorf("%s: %+v, %v", how, got, err)
		}
	}
}

func TestImport(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	key := newKey(t)
	p, err := r.Import(t.Context(), alice, "old", key)
	if err != nil || p.ID != key.ID() || !p.Online || d.keys[p.ID].UID != alice {
		t.Fatalf("%+v, %v", p, err)
	}
	if got, err := r.Key(p.ID); err != nil || got.ID() != key.ID() {
		t.Errorf("exported %v, %v", got.ID(), err)
	}
	// Whose it is must not be told.
	_, err1 := r.Import(t.Context(), alice, "again", key)
	_, err2 := r.Import(t.Context(), bob, "mine", key)
	wantCode(t, err2, api.CodeConflict)
	if err1 == nil || err1.Error() != err2.Error() {
		t.Errorf("owner told %v, another %v", err1, err2)
	}
	if owner, _ := r.Owner(p.ID); owner != alice || d.keys[p.ID].UID != alice {
		t.Errorf("owner is now %d", owner)
	}
	d.failing = errDisk
	other := newKey(t)
	if _, err := r.Import(t.Context(), bob, "mine", other); !errors.Is(err, errDisk) || len(d.keys) != 1 {
		t.Errorf("%v, %d keys", err, len(d.keys))
	}
}

// TestIdentitiesAreBounded: of each user for itself, refused keys count too.
func TestIdentitiesAreBounded(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	for n := range maxIdentities {
		p := create(t, r, alice, fmt.Sprint("n", n))
		if n == 0 {
			d.refuse(p.ID)
			r.Load(d.entries())
		}
	}
	for what, try := range map[string]func() (Resident, error){
		"create": func() (Resident, error) { return r.Create(t.Context(), alice, "more") },
		"import": func() (Resident, error) { return r.Import(t.Context(), alice, "more", newKey(t)) },
	} {
		_, err := try()
		wantCode(t, err, api.CodeOverBudget)
		if want := fmt.Sprintf("over budget: you have %d of %d identities", maxIdentities, maxIdentities); err == nil || api.AsError(err).Message != want {
			t.Errorf("%s: told %v", what, err)
		}
	}
	if len(d.keys) != maxIdentities {
		t.Errorf("%d keys", len(d.keys))
	}
	create(t, r, bob, "more")
	p, err := r.Find(alice, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if p, err = r.Rename(t.Context(), p, "one"); err != nil {
		t.Error("renaming needs no room:", err)
	}
	if err := r.Remove(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	create(t, r, alice, "more")
}

func TestRenameAndOnlineSurviveRestart(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	p := create(t, r, alice, "work")
	p2, err := r.Rename(t.Context(), p, "job")
	if err != nil || p2.Name != "job" || p2.ID != p.ID {
		t.Fatalf("%+v, %v", p2, err)
	}
	if p2, err = r.SetOnline(t.Context(), p, false); err != nil || p2.Online || p2.Name != "job" {
		t.Fatalf("%+v, %v", p2, err)
	}
	for range 2 { // now, and after a restart
		if here, online := r.Here(p.ID); !here || online {
			t.Errorf("here %v, online %v", here, online)
		}
		if got, err := r.Find(alice, "job"); err != nil || got.ID != p.ID {
			t.Errorf("%+v, %v", got, err)
		}
		_, err = r.Find(alice, "work")
		wantCode(t, err, api.CodeNotFound)
		r, _ = start(d)
	}
	if _, err = r.SetOnline(t.Context(), p, true); err != nil {
		t.Error(err)
	}
	if _, online := r.Here(p.ID); !online {
		t.Error("still offline")
	}
}

func TestFailedChangeChangesNothing(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	p := create(t, r, alice, "work")
	d.failing = errDisk
	if _, err := r.Rename(t.Context(), p, "job"); !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
	if _, err := r.SetOnline(t.Context(), p, false); !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
	if got, err := r.Find(alice, "work"); err != nil || !got.Online {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRemove(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	p := create(t, r, alice, "work")
	if err := r.Remove(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if len(d.keys) != 0 || len(d.names) != 0 {
		t.Errorf("left %d keys, %d names", len(d.keys), len(d.names))
	}
	if here, _ := r.Here(p.ID); here {
		t.Error("still here")
	}
	_, err := r.Delegation(p.ID)
	wantCode(t, err, api.CodeNotFound)
	_, err = r.Key(p.ID)
	wantCode(t, err, api.CodeNotFound)
	_, err = r.Rename(t.Context(), p, "job")
	wantCode(t, err, api.CodeNotFound)
	if _, ok := r.Owner(p.ID); ok {
		t.Error("has an owner")
	}
	if err := r.Remove(t.Context(), p); err == nil {
		t.Error("removed twice")
	}
	create(t, r, alice, "work") // the name is free again
}

// TestLostStore: keys are found without the database, under a name made of the id.
func TestLostStore(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	p := create(t, r, alice, "work")
	clear(d.names)
	r.Load(d.entries())
	got := r.All()
	if len(got) != 1 || got[0].ID != p.ID || got[0].UID != alice || !got[0].Online || got[0].Name != p.ID.Short() {
		t.Errorf("%+v", got)
	}
}

// TestMovedKeyKeepsNamesApart: an admin moved a key into the folder of a user
// who has an identity of that name.
func TestMovedKeyKeepsNamesApart(t *testing.T) {
	d := newDisk()
	r, _ := start(d)
	create(t, r, alice, "work")
	moved := create(t, r, bob, "work").ID
	e := d.keys[moved]
	e.UID = alice
	d.keys[moved] = e
	r.Load(d.entries())
	got := names(r.List(alice))
	if len(got) != 2 || got[0] == got[1] || !slices.Contains(got, "work") {
		t.Errorf("names %q", got)
	}
}

// TestReadersWhileWriting gives the race detector something to look at.
func TestReadersWhileWriting(t *testing.T) {
	d := newDisk()
	r, clock := start(d)
	p := create(t, r, alice, "alice")
	q := create(t, r, alice, "refused")
	d.refuse(q.ID)
	r.Load(d.entries())
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { _, _ = r.Delegation(p.ID); _, _ = r.Delegation(q.ID); clock.move(ttl) })
		wg.Go(func() { _, _ = r.Rename(t.Context(), q, "a"); _, _ = r.Rename(t.Context(), q, "b") })
		wg.Go(func() { r.Here(p.ID); r.List(alice); r.All(); _, _ = r.Find(alice, "a"); _, _ = r.Key(q.ID) })
		wg.Go(func() { _, _ = r.SetOnline(t.Context(), p, false); r.Load(d.entries()) })
	}
	wg.Wait()
}
