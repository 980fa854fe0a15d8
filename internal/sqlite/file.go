package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// fileMode is for the owner only. SQLite gives -wal and -shm the mode of the
// database itself.
const fileMode = 0o600

// prepareFile makes sure that path is a plain file of ours, of mode 0600, new
// and empty if there was none.
func prepareFile(path string) error {
	// Not blocking, lest a FIFO keeps the daemon from starting.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, fileMode)
	if errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("open %s: %w: it is a symbolic link", path, ErrUnsafeFile)
	}
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("open %s: %w: mode %v", path, ErrUnsafeFile, info.Mode())
	}
	if info.Mode().Perm() != fileMode {
		if err := f.Chmod(fileMode); err != nil {
			return fmt.Errorf("open database: %w", err)
		}
	}
	return nil
}

// writeFile puts b at path, whole or not at all.
func writeFile(path string, b []byte) error {
	temp := path + ".part"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return errors.Join(os.Rename(temp, path), syncDir(path))
}

// syncFile makes what was written to path durable.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncDir makes renames in the folder of path durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
