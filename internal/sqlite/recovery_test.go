package sqlite

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copyDB copies a database that is open, as a kill leaves it.
func copyDB(t *testing.T, from, to string) {
	t.Helper()
	for _, part := range []string{"", "-wal", schemaSuffix, recoverySuffix, markSuffix} {
		raw, err := os.ReadFile(from + part)
		if errors.Is(err, os.ErrNotExist) {
			must(t, removeIfThere(to+part))
			continue
		}
		must(t, err)
		must(t, os.WriteFile(to+part, raw, 0o600))
	}
}

func removeIfThere(path string) error { return ignoreAbsent(os.Remove(path)) }

// A repair is told by every Open until somebody took note, together with what came
// on top.
func TestUntoldRecovery(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 2000)
	damageLeaf(t, path, 500)
	db := openAt(t, path, notes)
	first := db.Recovery().Tables[0].Missing
	must(t, db.Close())
	db = openAt(t, path, notes)
	if r := db.Recovery(); r == nil || r.Tables[0].Missing != first || r.Cause == "" || r.MovedTo == "" {
		t.Fatalf("the next start says %+v", r)
	}
	moved := db.Recovery().MovedTo
	must(t, db.Close())
	damageLeaf(t, path, 1500)
	db = openAt(t, path, notes)
	r := db.Recovery()
	if r == nil || r.Tables[0].Missing != 2000-count(t, db) || r.Tables[0].Missing <= first || r.MovedTo == moved {
		t.Errorf("with a second one: %+v, %d rows", r, count(t, db))
	}
	must(t, errors.Join(db.Told(), db.Told(), db.Close()))
	if db = openAt(t, path, notes); db.Recovery() != nil {
		t.Errorf("told, and told again: %+v", db.Recovery())
	}
}

// What a repair found is not forgotten when it ends between its steps.
func TestUntoldRecoveryOfAnInterruptedSwap(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 2000)
	damageLeaf(t, path, 500)
	r, err := rebuilt(t.Context(), path, Options{Migrations: notes})
	must(t, err)
	must(t, r.keep(path, plannedSuffix))
	must(t, os.Rename(path+buildingSuffix, path+rebuiltSuffix+stamp()))
	if got := openAt(t, path, notes).Recovery(); got == nil || !got.Lost() || got.Tables[0] != r.Tables[0] {
		t.Errorf("told %+v, found %+v", got, r)
	}
}

// A file that is gone is not a damaged one.
func TestMissingFile(t *testing.T) {
	testutil.LeakCheck(t)
	for name, lose := range map[string]func(path string) error{
		"gone": os.Remove,
		"gone, and a start that ended early": func(path string) error {
			return errors.Join(os.Truncate(path, 0), (&Recovery{Missing: true}).keep(path, recoverySuffix))
		},
	} {
		path := filled(t, 10)
		must(t, lose(path))
		db := openAt(t, path, notes)
		if r := db.Recovery(); r == nil || !r.Missing || !r.Lost() || r.MovedTo != "" || r.Tables != nil {
			t.Errorf("%s: %+v", name, r)
		}
		insert(t, db, 0, 1)
		must(t, errors.Join(db.Told(), db.Close()))
		if db = openAt(t, path, notes); db.Recovery() != nil || count(t, db) != 1 {
			t.Errorf("%s: afterwards: %+v, %d rows", name, db.Recovery(), count(t, db))
		}
	}
	path := filled(t, 10)
	must(t, errors.Join(os.Remove(path), os.Remove(path+schemaSuffix)))
	if r := openAt(t, path, notes).Recovery(); r != nil {
		t.Errorf("where nothing is known to have been: %+v", r)
	}
	path = crashed(t, 30)
	must(t, os.Remove(path))
	db := openAt(t, path, notes)
	if r := db.Recovery(); r == nil || !r.Missing || count(t, db) != 30 {
		t.Errorf("with a log: %+v, %d rows", r, count(t, db))
	}
}

// The same damaged log is kept and told once, however often a start ends early, and
// nothing of it is left to be found in a later one.
func TestDamagedLogIsToldOnce(t *testing.T) {
	testutil.LeakCheck(t)
	path := crashed(t, 30)
	info, err := os.Stat(path + "-wal")
	must(t, err)
	overwrite(t, path+"-wal", info.Size()/2, []byte("damage"))
	spoilt := filepath.Join(t.TempDir(), "x.db")
	copyDB(t, path, spoilt)
	for range 3 { // it is cut, and nothing more comes of it
		bad, err := cutLog(path)
		if err != nil || !bad {
			t.Fatal(bad, err)
		}
	}
	db := openAt(t, path, notes)
	r := db.Recovery()
	if r == nil || r.Commits < 10 || r.Commits > 20 {
		t.Fatalf("recovery %+v", r)
	}
	must(t, db.Told())
	insert(t, db, 100, 101)
	killed := filepath.Join(t.TempDir(), "x.db")
	copyDB(t, path, killed)
	if r := openAt(t, killed, notes).Recovery(); r != nil {
		t.Errorf("after a kill: %+v", r)
	}
	must(t, db.Close())
	copyDB(t, spoilt, path) // as if it had been killed before the log was folded
	if r := openAt(t, path, notes).Recovery(); r != nil {
		t.Errorf("the same log once more: %+v", r)
	}
	if copies, err := filepath.Glob(path + damagedSuffix + "*"); err != nil || len(copies) != 1 {
		t.Errorf("kept %v, %v", copies, err)
	}
}

// Of what was moved aside the first and the newest stay.
func TestDamagedCopiesAreBounded(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 300)
	mine := path + damagedSuffix + "my-own-copy"
	must(t, os.WriteFile(mine, nil, 0o600))
	var moved []string
	for range 8 {
		damageMiddle(t, path, 150)
		db := openAt(t, path, notes)
		moved = append(moved, db.Recovery().MovedTo)
		exec(t, db, "DELETE FROM notes")
		insert(t, db, 0, 300)
		must(t, db.Close())
	}
	left, err := filepath.Glob(path + damagedSuffix + "*")
	must(t, err)
	left = slices.DeleteFunc(left, func(name string) bool { return strings.HasSuffix(name, "-wal") })
	want := append([]string{moved[0]}, moved[len(moved)-damagedKept+1:]...)
	if want = append(want, mine); !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
}

// Large ones between the first and the newest go sooner.
func TestLargeDamagedCopies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	name := func(n int) string {
		return path + damagedSuffix + start.Add(time.Duration(n)*time.Hour).Format(stampLayout)
	}
	for n := range 4 {
		must(t, os.WriteFile(name(n), nil, 0o600))
		must(t, os.Truncate(name(n), damagedBytes-1)) // a hole
		must(t, os.WriteFile(name(n)+"-wal", nil, 0o600))
	}
	must(t, os.Truncate(name(2)+"-wal", 2))
	must(t, pruneDamaged(path))
	left, err := filepath.Glob(path + damagedSuffix + "*")
	must(t, err)
	if want := []string{name(0), name(0) + "-wal", name(3), name(3) + "-wal"}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
}

func TestPause(t *testing.T) {
	p := Pause{Free: 2}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	repairs, pauses := 0, []time.Duration{}
	for end := now.Add(100 * time.Hour); now.Before(end); repairs++ {
		wait := p.Left(now)
		if len(pauses) < 7 {
			pauses = append(pauses, wait)
		}
		now = now.Add(wait)
		if left := p.Left(now); left != 0 {
			t.Fatalf("after a pause of %v %v are left", wait, left)
		}
		p.Note(now)
		now = now.Add(time.Second)
		if wait > 0 && p.Left(now) < time.Minute-time.Second {
			t.Fatalf("no pause after one of %v", wait)
		}
	}
	want := []time.Duration{0, 0, time.Minute - time.Second, 2*time.Minute - time.Second, 4*time.Minute - time.Second, 8*time.Minute - time.Second, 16*time.Minute - time.Second}
	if !slices.Equal(pauses, want) {
		t.Errorf("pauses %v, want %v", pauses, want)
	}
	if repairs > 8*100 {
		t.Errorf("%d repairs in 100 hours", repairs)
	}
	if left := p.Left(now.Add(2 * time.Hour)); left != 0 {
		t.Errorf("%v are left after quiet hours", left)
	}
}

// Without room for it a repair is not begun, and that is not called damage.
func TestRepairWithoutRoom(t *testing.T) {
	testutil.LeakCheck(t)
	if os.Geteuid() != 0 {
		t.Skip("a disk of its own takes root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size=1600k"); err != nil {
		t.Skipf("no disk of its own: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
	path := filepath.Join(dir, "x.db")
	db := openAt(t, path, notes)
	for n := 0; n < 2000; n += 500 { // about 900 KiB
		insert(t, db, n, n+500)
		_, err := db.writer.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
		must(t, err)
	}
	must(t, db.Close())
	damageMiddle(t, path, 1000)
	for range 2 {
		_, err := Open(t.Context(), path, Options{Migrations: notes})
		room, ok := errors.AsType[*RoomError](err)
		if !ok || !errors.Is(err, ErrDisk) || errors.Is(err, ErrDamaged) || !IsFull(err) || room.Path != path || room.Need <= room.Free {
			t.Fatalf("got %v, %+v", err, room)
		}
		for _, name := range asideOf(t, path) {
			if name != path+schemaSuffix {
				t.Errorf("left behind: %s", name)
			}
		}
	}
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=64m"))
	db = openAt(t, path, notes)
	if r := db.Recovery(); r == nil || count(t, db) < 1950 {
		t.Errorf("with room: %+v", r)
	}
	must(t, db.Close())
}

// One that meets the end of the disk on its way leaves nothing behind, and says so.
func TestRepairThatTheDiskRefuses(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 2000)
	damageMiddle(t, path, 1000)
	must(t, os.Mkdir(path+plannedSuffix+".part", 0o700)) // the last step before the exchange
	_, err := Open(t.Context(), path, Options{Migrations: notes})
	if !errors.Is(err, ErrDamaged) || errors.Is(err, ErrDisk) {
		t.Errorf("not the disk's fault: %v", err)
	}
	if names, err := filepath.Glob(path + buildingSuffix + "*"); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	must(t, os.Remove(path+plannedSuffix+".part"))
	if r := openAt(t, path, notes).Recovery(); r == nil || !strings.HasPrefix(r.MovedTo, path) {
		t.Errorf("%+v", r)
	}
}

// Numbers of rows are not counted beyond what there is.
func TestSearchAtTheEnds(t *testing.T) {
	for name, c := range map[string]struct {
		up, down int64 // the last rows before one that does not read
		scans    int
	}{
		"up to the last":   {math.MaxInt64, 17, 1},
		"down to first":    {17, math.MinInt64, 2},
		"both":             {math.MaxInt64, math.MinInt64, 1},
		"one before each":  {math.MaxInt64 - 1, math.MinInt64 + 1, 2},
		"negative, beside": {-3, -1, 2},
	} {
		calls := 0
		s := search{probes: probes, copied: func() bool { return true }}
		s.scan = func(lo, hi int64, order string) (*int64, bool, error) {
			if calls++; lo > hi {
				t.Fatalf("%s: rows %d to %d", name, lo, hi)
			}
			if calls > 2 {
				return nil, true, nil
			}
			last := c.up
			if order == "DESC" {
				last = c.down
			}
			return &last, false, nil
		}
		if whole, err := s.between(math.MinInt64, math.MaxInt64); whole || err != nil || calls != c.scans {
			t.Errorf("%s: %v, %v after %d calls", name, whole, err, calls)
		}
	}
	// Each half is smaller than the whole, wherever it lies.
	for _, lo := range []int64{math.MinInt64, -3, -2, -1, 0, 1, math.MaxInt64 - 1} {
		s := search{probes: 64, copied: func() bool { return true }}
		seen := make(map[[2]int64]bool)
		s.scan = func(lo, hi int64, order string) (*int64, bool, error) {
			if r := [2]int64{lo, hi}; order == "ASC" {
				if seen[r] {
					t.Fatalf("%d to %d twice", lo, hi)
				}
				seen[r] = true
			}
			return nil, false, nil
		}
		if _, err := s.between(lo, lo+1); err != nil {
			t.Error(err)
		}
	}
}

// It can be seen from outside that a repair gets on.
func TestProgress(t *testing.T) {
	testutil.LeakCheck(t)
	path := filled(t, 2000)
	damageLeaf(t, path, 1000)
	var p Progress
	var began, last time.Time
	seen := 0
	db, err := Open(t.Context(), path, Options{Migrations: notes, Progress: &p,
		Salvage: func(int64, []any) (string, []any, bool) {
			since, now, ok := p.Working()
			if !ok || now.Before(last) || since.After(now) || seen > 0 && since != began {
				t.Errorf("since %v, last %v, %v", since, now, ok)
			}
			if now.After(last) {
				seen++
			}
			began, last = since, now
			return "", nil, false
		}})
	must(t, err)
	must(t, db.Close())
	if _, _, ok := p.Working(); ok || seen < 1000 {
		t.Errorf("working %v, seen to get on %d times", ok, seen)
	}
}
