package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/backup"
	"github.com/fastn-stack/fastnd/service/api"
)

// systemUser runs the system's daemon and owns its state folder.
const systemUser = "fastn-daemon"

// Restored is what a restore brought back.
type Restored struct {
	Dir     string
	Node    string // id52
	Created time.Time
}

// Restore makes the state folder of what "fastn daemon backup" wrote to file: that
// of o.Home, or the system's, for which it must run as root and ends as the
// daemon's user. The folder must be empty, and no daemon may run in it.
func Restore(ctx context.Context, o Options, file string) (Restored, error) {
	f, err := os.Open(file)
	if err != nil {
		return Restored{}, api.Errorf(api.CodeNotFound, "cannot read the backup: %v", err).WithHint(`name a file that "fastn daemon backup" made`)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return Restored{}, api.Errorf(api.CodeBadRequest, "cannot read the backup: %s is a folder", file).WithHint(`name a file that "fastn daemon backup" made`)
	}
	r := Restored{Dir: systemState}
	var beside []string
	if o.perUser() {
		p, err := openHome(ctx, o.Home)
		if err != nil {
			return r, err
		}
		defer func() { _ = p.Close() }()
		r.Dir = p.dir
		// What a start makes, and what its owner wrote.
		beside = []string{homeLock, api.HomeSocket, homeConfig, "daemon.lock", "fastnd.log", "fastnd.log.1"}
	} else if err := becomeSystem(); err != nil {
		return r, err
	}
	about, err := backup.Restore(f, r.Dir, beside...)
	r.Node, r.Created = about.Node, about.Created
	return r, err
}

// becomeSystem makes the system's state folder if it is missing, and this process
// one of the daemon's user: what is restored belongs to it from the first moment,
// and nothing is written with more rights than the daemon has.
func becomeSystem() error {
	if os.Geteuid() != 0 {
		return api.Errorf(api.CodeNotPermitted, "the system's daemon is restored by root only").
			WithHint("run it as root, or name a folder of your own with --home")
	}
	// The unit takes its socket away when it is stopped. To connect would start the daemon.
	if _, err := os.Lstat(api.SystemSocket); err == nil {
		return api.Errorf(api.CodeConflict, "the daemon runs, or would be started by the next client").
			WithHint("systemctl stop fastn.socket fastnd.service")
	}
	u, err := user.Lookup(systemUser)
	if err != nil {
		return api.Errorf(api.CodeNotFound, "there is no user %s: %v", systemUser, err).WithHint("install the package first")
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return err
	}
	if err := ownFolder(systemState, uid, gid); err != nil {
		return err
	}
	unix.Umask(0o077)
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return fmt.Errorf("become %s: %w", systemUser, err)
	}
	return nil
}

// ownFolder makes path, or takes it as it is, for uid alone.
func ownFolder(path string, uid, gid int) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chown(uid, gid), f.Chmod(0o700), f.Close())
}
