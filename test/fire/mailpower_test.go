package fire

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// cutsBetweenLooks is how many power cuts are followed by a look at what arrived.
const cutsBetweenLooks = 25

// The power goes at any moment while messages are sent: nothing that was
// acknowledged, to a program or by one daemon to the other, is lost.
func TestMailSurvivesPowerCuts(t *testing.T) {
	t.Parallel()
	if !ownMounts(t) {
		return
	}
	o := newPowered(t, bin)
	arrived := 0
	began := time.Now()
	cuts := testutil.Rounds(10, 500)
	for left := cuts; left > 0; left -= cutsBetweenLooks {
		o.cutSome(t, min(left, cutsBetweenLooks))
		a, _ := o.settle(t)
		arrived += a
	}
	t.Logf("%d power cuts in %v: %d messages arrived, of %d that was known before; failures that senders saw: %v",
		cuts, time.Since(began).Round(time.Millisecond), arrived, o.told, o.codes())
	if arrived == 0 || o.told == 0 {
		t.Error("nothing was sent, or known to have arrived")
	}
}

// The same with commits that do not wait for the disk: the test must see the loss.
func TestPowerCutsLoseWhatIsNotSynced(t *testing.T) {
	if !testutil.Torture() {
		t.Skip("builds a fastnd of its own: make torture")
	}
	t.Parallel()
	if !ownMounts(t) {
		return
	}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "fastn_unsynced", "-o", dir+"/", "github.com/fastn-stack/fastnd/cmd/fastnd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o := newPowered(t, dir)
	o.wrong = t.Logf
	for cuts := 5; cuts <= 50; cuts += 5 {
		o.cutSome(t, 5)
		// A receiver that lost its note of who waits for what does not tell that it is taken.
		for _, l := range o.lines {
			l.retry(t)
		}
		if arrived, missing := o.settle(t); missing > 0 {
			t.Logf("after %d cuts %d messages are lost, %d arrived", cuts, missing, arrived)
			return
		}
	}
	t.Error("nothing was lost: the test of power cuts sees nothing")
}

// powered is an office whose daemons have disks of their own.
type powered struct {
	*office
	disks map[*process.Daemon]*disk
}

func newPowered(t *testing.T, bin string) *powered {
	t.Helper()
	x, y, err := process.Pair(context.WithoutCancel(t.Context()), bin, process.Options{Stderr: newComplaints(t)})
	if err != nil {
		t.Fatal(err)
	}
	disks := map[*process.Daemon]*disk{}
	for _, d := range []*process.Daemon{x, y} {
		closeAfter(t, d)
		disks[d] = newDisk(t, d, "512M")
	}
	p := &powered{newOffice(t, x, y), disks}
	for _, k := range disks {
		k.sync(t) // what was set up so far is not what is tested
	}
	return p
}

// cutSome has messages sent while the power goes n times.
func (p *powered) cutSome(t *testing.T, n int) {
	t.Helper()
	p.work(t, true)
	for range n {
		p.cut(t)
	}
	p.rest()
}

// retry has a line's messages that wait tried at once.
func (l *line) retry(t *testing.T) {
	t.Helper()
	c := client.New(l.d.Socket, client.Options{Name: "retry", From: l.from})
	defer c.Close()
	var p api.OutboxPage
	if err := c.Verb(t.Context(), api.VerbOutboxList, nil, &p); err != nil {
		t.Fatal(full(err))
	}
	for _, m := range p.Messages {
		if err := c.Verb(t.Context(), api.VerbOutboxRetry, api.OutboxArgs{MessageID: m.MessageID}, nil); err != nil && api.CodeOf(err) != api.CodeConflict {
			t.Fatal(full(err)) // else it was delivered meanwhile
		}
	}
}

// cut takes the power from some of the machines, and gives it back.
func (p *powered) cut(t *testing.T) {
	t.Helper()
	time.Sleep(rand.N(250 * time.Millisecond)) // the moment of the cut
	var wg sync.WaitGroup
	for _, d := range [][]*process.Daemon{{p.x}, {p.y}, {p.x, p.y}}[rand.N(3)] {
		wg.Go(func() { p.disks[d].cut(t, d) })
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// ownMounts runs the test in a process with a mount namespace of its own, and tells
// whether this is that process. Elsewhere any program that makes itself a
// namespace meanwhile keeps a copy of our mounts: a file system whose power is
// gone is then not unmounted, and the next mount gives it, or one beside it.
func ownMounts(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	return apart(t, "--mount", "--propagation", "private")
}

// disk is an ext4 of its own below a daemon's home.
type disk struct{ device, dir string }

// newDisk moves the home of a daemon that runs onto a disk of its own.
func newDisk(t *testing.T, d *process.Daemon, size string) *disk {
	t.Helper()
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "image")
	shell(t, `truncate -s "$2" "$1" && mkfs.ext4 -q "$1"`, image, size)
	device, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	k := &disk{strings.TrimSpace(string(device)), d.Home}
	t.Cleanup(func() {
		_ = unix.Unmount(k.dir, unix.MNT_DETACH)
		shell(t, `losetup --detach "$1"`, k.device)
	})
	shell(t, `mkdir "$2.keep" && cp -a "$2/." "$2.keep/" && mount "$1" "$2" && cp -a "$2.keep/." "$2/" && rm -r "$2.keep" &&
		chmod 700 "$2" && sync --file-system "$2"`, k.device, k.dir)
	t.Cleanup(func() { _ = d.Kill() }) // before the disk goes
	if err := d.Run(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return k
}

// sync waits for this disk alone: those of a machine that builds something take long.
func (k *disk) sync(t *testing.T) {
	t.Helper()
	f, err := os.Open(k.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
}

// cut is a power cut: what the disk was not told to keep is gone. The daemon stands
// still before: else it could tell, of what it hears while the disk goes, and Linux
// may then answer fdatasync with 0 although the blocks that were written are not
// part of the file yet (ext4 drops the error of that when it is shut down).
func (k *disk) cut(t *testing.T, d *process.Daemon) {
	if err := freeze(d.PID()); err != nil {
		t.Error(err)
		return
	}
	shutdown(t, k.dir)
	if err := d.Kill(); err != nil {
		t.Error(err)
	}
	k.unmount(t)
	if out, err := exec.Command("mount", k.device, k.dir).CombinedOutput(); err != nil {
		t.Errorf("mount: %v: %s", err, out)
		return
	}
	if err := d.Run(context.WithoutCancel(t.Context())); err != nil {
		t.Error(full(err))
	}
}

// freeze returns when no thread of pid runs any more, or will before SIGCONT.
func freeze(pid int) error {
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		running := 0
		for _, path := range threads {
			b, readErr := os.ReadFile(path)
			_, state, _ := strings.Cut(string(b), ") ")
			// One in the kernel's hands (D) stops before it runs again.
			if readErr == nil && !strings.HasPrefix(state, "T") && !strings.HasPrefix(state, "D") {
				running++
			}
		}
		if err != nil || running == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d threads of %d do not stop", running, pid)
		}
	}
}

func (k *disk) unmount(t *testing.T) {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Unmount(k.dir, 0)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("unmount: %v", err)
			return
		}
	}
}
