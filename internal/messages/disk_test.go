package messages

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// smallDisk mounts one of a size, and gives a function that changes it.
func smallDisk(t *testing.T, size string) (dir string, resize func(size string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a disk of its own takes root")
	}
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Skipf("no disk of its own: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir, func(size string) {
		t.Helper()
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size="+size); err != nil {
			t.Fatal(err)
		}
	}
}

// fill sends until the disk refuses, and gives what was acknowledged.
func (b *box) fill(most int) (acknowledged []string, err error) {
	b.t.Helper()
	for i := range most {
		name := fmt.Sprint("message-", i)
		if _, err = b.Put(b.t.Context(), lane.message(name, strings.Repeat("x", 5_000))); err != nil {
			return acknowledged, err
		}
		acknowledged = append(acknowledged, name)
	}
	b.t.Fatal("the disk took everything")
	return nil, nil
}

func (b *box) queued() []string {
	b.t.Helper()
	ms, _, err := b.Head(b.t.Context(), lane, 1<<20, 0)
	b.must(err)
	return ids(ms)
}

func TestFullDisk(t *testing.T) {
	testutil.LeakCheck(t)
	dir, resize := smallDisk(t, "8m")
	b := &box{t: t, dir: dir, clock: newClock(), limits: bigLimits()}
	b.open()
	acknowledged, err := b.fill(5000)
	wantCode(t, err, api.CodeStorage)
	if e := api.AsError(err); !strings.Contains(e.Message, "the disk is full") || !strings.Contains(e.Hint, "free some space") || !sqlite.IsFull(err) {
		t.Errorf("%+v", e)
	}
	// Nothing more is acknowledged, and what was is served.
	for range 3 {
		if got := b.take(lane.message("1", strings.Repeat("x", 5_000))); api.CodeOf(got[0].Err) != api.CodeStorage {
			t.Errorf("%+v", got)
		}
	}
	if got := b.queued(); !slices.Equal(got, acknowledged) {
		t.Errorf("%d are queued, %d were acknowledged", len(got), len(acknowledged))
	}
	// It works again by itself.
	resize("64m")
	o, err := b.Put(t.Context(), lane.message("later", "x"))
	b.must(err)
	if got := b.take(lane.message("1", "x")); !got[0].Fresh || o.State != Queued {
		t.Errorf("%+v", got)
	}
	b.checkUsage()
	b.must(b.CheckAll(t.Context()))
	b.reopen()
	if got := b.queued(); !slices.Equal(got, append(acknowledged, "later")) || b.Recovery() != nil {
		t.Errorf("%d are queued, %d were acknowledged; recovery %+v", len(got), len(acknowledged)+1, b.Recovery())
	}
	b.checkUsage()
	b.must(b.Close())
}

// A disk that refuses to write, as one that fails does.
func TestFailingDisk(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	b.put(lane, "first")
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var old syscall.Rlimit
	b.must(syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	// More than what the test itself may write: go test's log of opened files is 1 MiB.
	b.must(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 8 << 20, Max: old.Max}))
	acknowledged, err := b.fill(5000)
	got := b.take(lane.message("1", strings.Repeat("x", 5_000)))
	b.must(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old))
	wantCode(t, err, api.CodeStorage)
	wantCode(t, got[0].Err, api.CodeStorage)
	if sqlite.IsFull(err) {
		t.Errorf("taken for a full disk: %v", err)
	}
	b.put(lane, "later")
	all := slices.Concat([]string{"first"}, acknowledged, []string{"later"})
	for range 2 {
		if got := b.queued(); !slices.Equal(got, all) {
			t.Errorf("%d are queued, %d were acknowledged", len(got), len(all))
		}
		b.checkUsage()
		b.reopen()
	}
	if b.Recovery() != nil {
		t.Errorf("%+v", b.Recovery())
	}
}

// A dead disk looks damaged to one and dead to who tries to mend it: all say that
// it is the disk.
func TestDeadDiskThatLooksDamaged(t *testing.T) {
	b := newBox(t)
	old := b.db
	b.must(old.Close())
	b.db, b.broken = nil, fmt.Errorf("open: %w", sqlite.ErrDisk)
	b.pause.Note(b.clock.Now())
	err := b.failure(b.heal(t.Context(), old, sqlite.ErrDamaged))
	wantCode(t, err, api.CodeStorage)
}

// One that has its place among others is not stored behind them when the file was
// repaired meanwhile.
func TestPlacedIsNotStoredLater(t *testing.T) {
	b := newBox(t)
	b.put(lane, "1")
	b.must(os.Remove(b.path()))
	ctx := router.WithPlaced(t.Context(), func() {})
	_, err := b.Put(ctx, lane.message("2", "x"))
	wantCode(t, err, api.CodeStorage)
	if e := api.AsError(err); !strings.Contains(e.Hint, "send it again") {
		t.Errorf("%+v", e)
	}
	_, err = b.Put(ctx, lane.message("2", "x"))
	b.must(err)
	if got := b.queued(); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("%q", got)
	}
}

// A count that cannot be recorded keeps no reader.
func TestFailedAuditKeepsNoReader(t *testing.T) {
	b := newBox(t)
	b.put(lane, "1")
	b.must(os.Remove(b.path()))
	for range 10 {
		if err := audit(t.Context(), b.db, b.batch, b.use); err == nil {
			t.Fatal("it was recorded")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	b.must(b.db.View(ctx, func(*sql.Tx) error { return nil }))
}
