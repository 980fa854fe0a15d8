package sqlite

import (
	"errors"
	"os"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// A light check takes a file whose middle is bad; CheckAll finds it, and the
// mark makes the next Open repair it, once.
func TestLightCheck(t *testing.T) {
	testutil.LeakCheck(t)
	const n = 2000
	path := filled(t, n)
	damageMiddle(t, path, n/2)
	light := Options{Migrations: notes, LightCheck: 1}
	open := func() *DB {
		t.Helper()
		db, err := Open(t.Context(), path, light)
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	if db.Recovery() != nil {
		t.Fatalf("a light check saw the middle: %+v", db.Recovery())
	}
	if err := db.CheckAll(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("the whole check: %v", err)
	}
	if err := errors.Join(db.Suspect(), db.Close()); err != nil {
		t.Fatal(err)
	}
	db = open()
	if r := db.Recovery(); r == nil || !r.Lost() {
		t.Errorf("recovery %+v", r)
	}
	if err := errors.Join(db.Told(), db.CheckAll(t.Context()), db.Suspect(), db.Close()); err != nil {
		t.Fatal(err)
	}
	db = open() // a false alarm: nothing to repair, and the mark is gone
	if db.Recovery() != nil {
		t.Errorf("a sound file was repaired: %+v", db.Recovery())
	}
	if _, err := os.Stat(path + suspectSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark stays: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLightCheckSeesTheEnds(t *testing.T) {
	testutil.LeakCheck(t)
	const n = 2000
	for _, at := range []int{1, n - 2} {
		path := filled(t, n)
		damageMiddle(t, path, at) // of the index and the table, one
		damageMiddle(t, path, at) // and the other
		db, err := Open(t.Context(), path, Options{Migrations: notes, LightCheck: 1})
		if err != nil {
			t.Fatal(err)
		}
		if db.Recovery() == nil {
			t.Errorf("damage at %d was not seen", at)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What an index does not have is not found by it: such a file is damaged.
func TestCheckAllComparesIndexes(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 100)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var at []int // the table's text and the index'
	for i := range len(raw) - 206 {
		if string(raw[i:i+206]) == noteText(50) {
			at = append(at, i)
		}
	}
	if len(at) != 2 {
		t.Fatalf("%d places", len(at))
	}
	caught := 0
	for _, i := range at {
		bad := append([]byte(nil), raw...)
		bad[i+100] = 'y'
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := Open(t.Context(), path, Options{Migrations: notes, LightCheck: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.CheckAll(t.Context()); errors.Is(err, ErrDamaged) {
			caught++
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if caught != 2 {
		t.Errorf("seen %d of 2 times", caught)
	}
}
