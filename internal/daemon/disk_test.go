package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// However many are refused at once, the disk is tried by one of them.
func TestDiskIsTriedByOne(t *testing.T) {
	var running, tries atomic.Int32
	k := disk{write: func(string) error {
		if running.Add(1) > 1 {
			t.Error("two at once")
		}
		defer running.Add(-1)
		return fmt.Errorf("try %d: %w", tries.Add(1), unix.ENOSPC)
	}}
	ask := func(fresh time.Duration, want string) {
		t.Helper()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := k.probe("", fresh); !errors.Is(err, unix.ENOSPC) || !strings.HasPrefix(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			})
		}
		wg.Wait()
	}
	ask(time.Hour, "try 1:")
	ask(time.Hour, "try 1:")
	k.probed = k.probed.Add(-2 * time.Hour)
	ask(time.Hour, "try 2:")
	ask(0, "try ")
	if n := tries.Load(); n != 52 {
		t.Errorf("%d tries, of which 50 did not want what was found before", n)
	}
}

// The file with which the disk is tried may be gone again.
func TestProbeFileThatIsTakenAway(t *testing.T) {
	dir := t.TempDir()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.Remove(filepath.Join(dir, probeFile))
			}
		}
	})
	for range 50 {
		if err := probeDisk(dir); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// What is wrong is told as what it is, with a way out.
func TestDiagnose(t *testing.T) {
	d := &Daemon{place: &place{dir: "/var/lib/fastn"}}
	d.disk.write = func(string) error { return nil }
	full := &sqlite.RoomError{Path: "/var/lib/fastn/messages.db", Need: 900 << 20, Free: 3 << 20}
	for name, c := range map[string]struct {
		err      error
		id       systemd.MessageID
		why, fix []string
	}{
		"damaged": {fmt.Errorf("store: %w", &sqlite.FileError{Path: "/var/lib/fastn/fastn.db", Err: fmt.Errorf("repair: %w: tree 2", sqlite.ErrDamaged)}),
			systemd.MsgStoreDamaged, []string{"/var/lib/fastn/fastn.db is damaged", "tree 2"}, []string{"restore a backup: systemctl stop", "fastnd --restore FILE"}},
		"no room to repair": {fmt.Errorf("repair: %w", full),
			systemd.MsgDiskRefuses, []string{"nearly full", "to repair /var/lib/fastn/messages.db takes 900 MiB of room, 3 MiB are free"}, []string{"make room", "goes on by itself"}},
		"damaged, since the disk refused": {&sqlite.FileError{Path: "/x", Err: fmt.Errorf("%w: %w: %w", sqlite.ErrDamaged, sqlite.ErrDisk, unix.EIO)},
			systemd.MsgDiskRefuses, []string{"the disk under /var/lib/fastn fails"}, []string{"journalctl -k"}},
	} {
		id, why, fix := d.diagnose(c.err)
		if id != c.id {
			t.Errorf("%s: told as %s", name, id)
		}
		for _, w := range c.why {
			wantText(t, why, w)
		}
		for _, w := range c.fix {
			wantText(t, fix, w)
		}
	}
}

// Where its folder is moved away a daemon writes nothing into what is there instead,
// be it empty or a copy, and goes on by itself once it is back.
func TestFolderMovedAway(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.own()
	self := client.Message{Target: api.TargetSelf, Protocol: api.ProtocolText, Data: text("x")}
	// Nothing waits when the folder goes, or that this cannot be read is told too.
	delivered := func() {
		t.Helper()
		if m := d.final(d.send(self).MessageID); m.State != api.StateDelivered {
			t.Fatalf("%+v", m)
		}
	}
	delivered()
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	away, copied := d.home+".away", d.home+".copy"
	if err := errors.Join(os.CopyFS(copied, onlyFiles{os.DirFS(d.home)}), os.Mkdir(copied+".empty", 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(os.RemoveAll(copied), os.RemoveAll(copied+".empty")) })
	list := func(dir string) (names []string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, fmt.Sprint(e.Name(), info.Size(), info.ModTime()))
		}
		return names
	}
	for _, instead := range []string{copied + ".empty", copied} {
		was := list(instead)
		move(d.home, away)
		move(instead, d.home)
		for range 2 {
			e := refused(t, d.c, api.CodeStorage, api.VerbGrantAdd, api.GrantArgs{Who: api.WhoContacts, Protocol: "Notes"})
			wantText(t, e.Message, d.home+" is another folder than fastnd has open")
			wantText(t, e.Hint, "put it back", fmt.Sprintf("kill %[1]d; tail --pid=%[1]d -f /dev/null; fastn --home %[2]s daemon start", os.Getpid(), d.home))
			_, err := d.c.Send(limited(t), self)
			e = wantCode(t, err, api.CodeStorage)
			wantText(t, e.Message+e.Hint, "another folder")
			d.tryDisk(t.Context())
		}
		if p := d.status().Problems; len(p) != 1 || !strings.Contains(p[0].Text, "another folder") {
			t.Errorf("told: %+v", p)
		}
		now := list(d.home)
		for i, f := range now {
			if i >= len(was) || was[i] != f {
				t.Errorf("number %d there instead is %s, was %s", i, f, was[min(i, len(was)):])
				break
			}
		}
		if len(now) < len(was) {
			t.Errorf("of %d files %d are left", len(was), len(now))
		}
		move(d.home, instead)
		move(away, d.home)
		d.tryDisk(t.Context())
		if p := d.status().Problems; len(p) != 0 {
			t.Errorf("once it is back: %+v", p)
		}
		delivered()
	}
}

// onlyFiles leaves out sockets.
type onlyFiles struct{ fs.FS }

func (f onlyFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(f.FS, name)
	return slices.DeleteFunc(list, func(e fs.DirEntry) bool { return !e.IsDir() && !e.Type().IsRegular() }), err
}
