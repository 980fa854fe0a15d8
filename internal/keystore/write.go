package keystore

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// write puts key into a new file of dir: whole and durable under a temporary
// name first, then renamed, so that no crash leaves part of a key under its
// name. It fails with fs.ErrExist rather than replace anything.
func (k *Keystore) write(dir *folder, name string, key identity.Key) error {
	temp := tempName()
	err := k.writeTemp(dir, temp, EncodePEM(key))
	if err == nil {
		err = k.do("rename", func() error { return renameNew(dir.fd(), temp, name) })
	}
	if err != nil {
		_ = unix.Unlinkat(dir.fd(), temp, 0)
		return &fs.PathError{Op: "write", Path: dir.join(name), Err: err}
	}
	if err := k.do("sync folder", dir.Sync); err != nil {
		return &fs.PathError{Op: "sync", Path: dir.path, Err: err}
	}
	return nil
}

func (k *Keystore) writeTemp(dir *folder, temp string, data []byte) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	var f *os.File
	err := k.do("create", func() error {
		fd, err := openRetry(dir.fd(), temp, flags, 0o600)
		if err == nil {
			f = os.NewFile(uintptr(fd), dir.join(temp))
		}
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := k.settle(f, 0o600); err != nil {
		return err
	}
	if err := k.do("write", func() error { _, err := f.Write(data); return err }); err != nil {
		return err
	}
	return k.do("sync file", f.Sync)
}

// settle gives a file or folder just made its mode, whatever the umask, and its
// owner, where the process is another user (root).
func (k *Keystore) settle(f *os.File, mode fs.FileMode) error {
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if uint32(os.Geteuid()) == k.owner {
		return nil
	}
	return f.Chown(int(k.owner), -1)
}

func (k *Keystore) do(name string, f func() error) error {
	if k.step != nil {
		if err := k.step(name); err != nil {
			return err
		}
	}
	return f()
}

// renameNew renames within dir without replacing anything.
func renameNew(dir int, from, to string) error {
	err := unix.Renameat2(dir, from, dir, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return linkNew(dir, from, to)
	}
	return err
}

// linkNew does the same where a file system has no such rename (NFS).
func linkNew(dir int, from, to string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, from, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		// An empty folder replaces at most an empty folder: nothing is lost.
		return unix.Renameat(dir, from, dir, to)
	}
	if err := unix.Linkat(dir, from, dir, to, 0); err != nil {
		return err
	}
	return unix.Unlinkat(dir, from, 0)
}

func tempName() string { return tempPrefix + rand.Text() }
