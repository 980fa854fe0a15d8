package keystore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// folder is an open directory and the path to show for it.
type folder struct {
	*os.File
	path string
}

func (f *folder) fd() int { return int(f.Fd()) }

func (f *folder) join(names ...string) string {
	return filepath.Join(append([]string{f.path}, names...)...)
}

// names lists the folder in order, each time from its start.
func (f *folder) names() ([]string, error) {
	if _, err := f.Seek(0, 0); err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// check looks at the open folder again: it may have been opened to others since.
func (f *folder) check(owner uint32) error {
	var st unix.Stat_t
	if err := fstat(f.File, &st); err != nil {
		return err
	}
	return checkStat(f.path, &st, wantFolder, owner)
}

func (f *folder) control(do func(fd int) error) error { return control(f.File, do) }

func fstat(f *os.File, st *unix.Stat_t) error {
	return control(f, func(fd int) error { return unix.Fstat(fd, st) })
}

// control fails with fs.ErrClosed after Close, where a bare descriptor number
// might already be another file's.
func control(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var derr error
	if conn.Control(func(fd uintptr) { derr = do(int(fd)) }) != nil {
		return &fs.PathError{Op: "use", Path: f.Name(), Err: fs.ErrClosed}
	}
	return derr
}

// openAt opens one name in dir and checks what it got by the descriptor, never
// by the path. O_NONBLOCK keeps a FIFO from blocking, O_NOFOLLOW a link from
// leading elsewhere.
func openAt(dir *folder, name string, want kind, owner uint32) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOCTTY
	path := dir.join(name)
	fd, err := openRetry(dir.fd(), name, flags, 0)
	if err != nil {
		return nil, openRefusal(dir, name, want, owner, err)
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := fstat(f, &st); err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := checkStat(path, &st, want, owner); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func openRetry(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// openRefusal explains why an open failed. What it looks at may have changed
// since: it only words the refusal.
func openRefusal(dir *folder, name string, want kind, owner uint32, cause error) error {
	path := dir.join(name)
	var st unix.Stat_t
	err := unix.Fstatat(dir.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(cause, unix.ENOENT) || err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: cause}
	}
	if err := checkStat(path, &st, want, owner); err != nil {
		return err
	}
	if errors.Is(cause, unix.EACCES) {
		return unreadable(path, want, owner)
	}
	return &fs.PathError{Op: "open", Path: path, Err: cause}
}

func (k *Keystore) openFolder(parent *folder, name string) (*folder, error) {
	f, err := openAt(parent, name, wantFolder, k.owner)
	if err != nil {
		return nil, err
	}
	return &folder{File: f, path: parent.join(name)}, nil
}

// openOrMakeFolder makes a missing folder durable before it is used.
func (k *Keystore) openOrMakeFolder(parent *folder, name string) (*folder, error) {
	f, err := k.openFolder(parent, name)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := k.makeFolder(parent, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return k.openFolder(parent, name)
}

// makeFolder makes it under a temporary name, so that it is never seen with
// another mode or owner than the right ones.
func (k *Keystore) makeFolder(parent *folder, name string) error {
	temp := tempName()
	if err := unix.Mkdirat(parent.fd(), temp, 0o700); err != nil {
		return &fs.PathError{Op: "make folder", Path: parent.join(name), Err: err}
	}
	fd, err := openRetry(parent.fd(), temp, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		f := os.NewFile(uintptr(fd), parent.join(temp))
		err = k.settle(f, 0o700)
		_ = f.Close()
	}
	if err == nil {
		err = renameNew(parent.fd(), temp, name)
	}
	if err != nil {
		_ = unix.Unlinkat(parent.fd(), temp, unix.AT_REMOVEDIR)
		return &fs.PathError{Op: "make folder", Path: parent.join(name), Err: err}
	}
	return parent.Sync()
}

// sweep deletes what a crash left half made in dir.
func (k *Keystore) sweep(dir *folder) error {
	names, err := dir.names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n, tempPrefix) {
			_ = unix.Unlinkat(dir.fd(), n, 0)
			_ = unix.Unlinkat(dir.fd(), n, unix.AT_REMOVEDIR)
		}
	}
	return nil
}
