package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// diskRetry is how often a disk that refused is tried.
	diskRetry = 2 * time.Second
	// probeFile is what is written to try it, of probeSize bytes: more than a
	// change of the store needs, so that it does not fail again at once.
	probeFile = ".probe"
	probeSize = 256 << 10
)

// disk is what is known of the disk under the daemon's folder.
type disk struct {
	trouble atomic.Pointer[api.Problem] // nil while it takes what is written
	noticed chan struct{}               // of one: wakes watchDisk
	write   func(dir string) error      // probeDisk; tests set it
	tasks   string                      // ownTasks; tests set it

	probing sync.Mutex // one probe at a time: each takes room and syncs
	probed  time.Time
	found   error // by the last one
}

// probeFresh is how long the next one who is refused need not try the disk again.
const probeFresh = time.Second

// probe tries the disk, or tells what was found within the last fresh.
func (k *disk) probe(dir string, fresh time.Duration) error {
	k.probing.Lock()
	defer k.probing.Unlock()
	if k.probed.IsZero() || time.Since(k.probed) >= fresh {
		k.found = k.write(dir)
		k.probed = time.Now()
	}
	return k.found
}

// isDisk tells whether err means that the disk refused, be it full, read-only or
// failing, or damaged what is on it, or that another thing is in a file's place.
func isDisk(err error) bool {
	for _, e := range []error{sqlite.ErrDisk, sqlite.ErrDamaged, sqlite.ErrUnsafeFile, unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// explain gives an error for users if the disk is why something was not done, and
// has the disk watched until it works again.
func (d *Daemon) explain(err error) error {
	if e, ok := errors.AsType[*api.Error](err); ok && e.Code != api.CodeStorage || !isDisk(err) {
		return err
	}
	id, why, fix := d.diagnose(err)
	d.diskRefused(id, why, fix, err)
	return api.Errorf(api.CodeStorage, "it could not be stored and was not done: %s", why).WithHint("%s", d.asAdmin(fix))
}

// asAdmin words a fix for whoever may not be able to do it.
func (d *Daemon) asAdmin(fix string) string {
	if d.o.perUser() {
		return fix
	}
	return "as administrator: " + fix
}

// diskRefused tells of it once.
func (d *Daemon) diskRefused(id systemd.MessageID, why, fix string, err error) {
	effect := "what is stored is served, changes are refused"
	if f, ok := errors.AsType[*sqlite.FileError](err); ok && filepath.Base(f.Path) == messages.File && id == systemd.MsgStoreDamaged {
		effect = "the messages in it are not served, changes are refused"
	}
	p := &api.Problem{Text: why + "; " + effect, Fix: fix}
	if d.disk.trouble.Swap(p) == nil {
		d.log.Error("the disk refused a change", id.Attr(), "problem", why, "fix", fix, "error", err)
		d.tellStatus()
	}
	d.watch()
}

func (d *Daemon) watch() {
	select {
	case d.disk.noticed <- struct{}{}:
	default:
	}
}

func (d *Daemon) tellStatus() {
	if err := d.notify.Status(d.status()); err != nil {
		d.log.Error("cannot tell systemd how the daemon is", "error", err)
	}
}

// diagnose tries the disk and says what is wrong with it, and what to do.
func (d *Daemon) diagnose(err error) (id systemd.MessageID, why, fix string) {
	if errors.Is(err, sqlite.ErrElsewhere) || d.moved() {
		return systemd.MsgDiskRefuses, fmt.Sprintf("%s is another folder than fastnd has open: its disk was exchanged or taken away, or the folder was moved", d.place.dir),
			"put it back, and fastnd goes on by itself; if it does not, or to go on with what is there now: " + d.replaceCommand()
	}
	if probe := d.disk.probe(d.place.dir, probeFresh); probe != nil {
		err = probe
	}
	if errors.Is(err, sqlite.ErrUnsafeFile) {
		return systemd.MsgStoreDamaged, strings.Join(strings.Fields(err.Error()), " "),
			"put the file back that was in its place, and fastnd goes on by itself; to go on without it, move away what is there"
	}
	if f, ok := errors.AsType[*sqlite.FileError](err); ok && !errors.Is(err, sqlite.ErrDisk) {
		return systemd.MsgStoreDamaged, fmt.Sprintf("%s is damaged and was not repaired: %s", f.Path, strings.Join(strings.Fields(err.Error()), " ")),
			"restore a backup: " + d.restoreCommand()
	}
	why, fix = d.whyRefused(err)
	return systemd.MsgDiskRefuses, why, fix
}

// moved tells that the folder is not the one that the node was started in.
func (d *Daemon) moved() bool {
	n := d.node.Load()
	if n == nil {
		return false
	}
	now, err := os.Stat(d.place.dir)
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, n.folder)
}

// whyRefused is diagnose for what the disk did not take.
func (d *Daemon) whyRefused(err error) (why, fix string) {
	dir := d.place.dir
	quoted := api.ShellQuote(dir)
	var room *sqlite.RoomError
	var st unix.Statfs_t
	statErr := unix.Statfs(dir, &st)
	switch {
	case errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || statErr == nil && st.Flags&unix.ST_RDONLY != 0:
		if p := d.readOnlyUnit(); p != nil {
			return p.Text, p.Fix
		}
		return fmt.Sprintf("the file system of %s is read-only", dir),
			fmt.Sprintf(`find out why with "findmnt --target %s", "systemctl cat fastnd" and "journalctl -k", make it writable, then: systemctl daemon-reload && systemctl restart fastnd.service`, quoted)
	case errors.Is(err, unix.EDQUOT):
		return fmt.Sprintf("the disk quota of %s is used up", dir),
			"raise the quota of fastnd's user or remove files of that user; fastnd then goes on by itself"
	case errors.As(err, &room):
		return fmt.Sprintf("the file system of %s is nearly full: %v", dir, room),
			fmt.Sprintf(`make room on it ("df -h %s" shows which it is); fastnd then goes on by itself`, quoted)
	case statErr == nil && st.Files > 0 && st.Ffree == 0:
		return fmt.Sprintf("the file system of %s has no inodes left", dir),
			fmt.Sprintf(`remove files from it ("df -i %s" shows which it is); fastnd then goes on by itself`, quoted)
	case errors.Is(err, unix.ENOSPC) || sqlite.IsFull(err):
		return fmt.Sprintf("the file system of %s is full", dir),
			fmt.Sprintf(`make room on it ("df -h %s" shows which it is); fastnd then goes on by itself`, quoted)
	}
	return fmt.Sprintf("the disk under %s fails: %v", dir, err),
		fmt.Sprintf(`"journalctl -k" shows what the kernel says, "findmnt --target %s" which file system it is`, quoted)
}

// probeDisk writes something to the disk and takes it away again.
func probeDisk(dir string) error {
	path := filepath.Join(dir, probeFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, probeSize))
	if err == nil {
		err = f.Sync()
	}
	removed := os.Remove(path)
	if errors.Is(removed, fs.ErrNotExist) {
		removed = nil // somebody tidied up
	}
	return errors.Join(err, f.Close(), removed)
}

// watchDisk waits for a disk that refused, and then goes on without anybody's
// help: by a new write, or by the start of a node that could not be started.
func (d *Daemon) watchDisk(ctx context.Context) {
	for {
		select {
		case <-d.disk.noticed:
		case <-ctx.Done():
			return
		}
		tick := time.NewTicker(d.o.retryDisk())
		for d.disk.trouble.Load() != nil && ctx.Err() == nil {
			select {
			case <-tick.C:
				d.tryDisk(ctx)
			case <-ctx.Done():
			}
		}
		tick.Stop()
	}
}

func (d *Daemon) tryDisk(ctx context.Context) {
	if d.moved() || d.disk.probe(d.place.dir, 0) != nil {
		return
	}
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.stopping.Load() {
		return
	}
	if n := d.node.Load(); n != nil {
		if err := n.store.Heal(ctx); err != nil {
			d.log.Debug("the disk works, the store does not", "error", err)
			return
		}
		if err := n.mail.store.Heal(ctx); err != nil {
			d.log.Debug("the disk works, the messages do not", "error", err)
			return
		}
		n.mail.courier.Moved()
		d.disk.trouble.Store(nil)
	} else {
		d.disk.trouble.Store(nil) // startNode notices it again
		d.startNode(ctx)
	}
	if d.disk.trouble.Load() == nil {
		d.log.Info("the disk takes changes again")
	}
	d.tellStatus()
}

func (o Options) retryDisk() time.Duration {
	if o.diskRetry > 0 {
		return o.diskRetry
	}
	return diskRetry
}
