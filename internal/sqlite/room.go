package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// RoomError tells that a repair was not begun, since the disk has no room for it.
// It is ErrDisk.
type RoomError struct {
	Path       string // of the database
	Need, Free int64  // bytes
}

func (e *RoomError) Error() string {
	return fmt.Sprintf("to repair %s takes %d MiB of room, %d MiB are free", e.Path, mebibytes(e.Need), e.Free>>20)
}

// Unwrap makes it what a write to the full disk would have given.
func (e *RoomError) Unwrap() []error { return []error{ErrDisk, syscall.ENOSPC} }

func mebibytes(n int64) int64 { return (n + 1<<20 - 1) >> 20 }

// room refuses to begin what would fill the disk before it is done, and take as
// long as that each time it is tried.
func room(path string, need int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return &RoomError{Path: path, Need: need, Free: free}
	}
	return nil
}

// sizes gives the size of the database at path with its log, and how much of that
// a copy of its rows takes at most.
func sizes(path string) (whole, rows int64, err error) {
	for _, part := range []string{"", "-wal"} {
		info, err := os.Stat(path + part)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		whole += info.Size()
	}
	return whole, max(0, whole-freePages(path)*rawPageSize), nil
}

// freePages is how many pages of the file its header says to be unused, 0 if the
// header is not one.
func freePages(path string) int64 {
	const magic, freeAt = "SQLite format 3\x00", 36 // see the file format's table of the header
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, rawHeader)
	if _, err := f.ReadAt(head, 0); err != nil || !bytes.HasPrefix(head, []byte(magic)) {
		return 0
	}
	free := int64(binary.BigEndian.Uint32(head[freeAt:]))
	if info, err := f.Stat(); err != nil || free*rawPageSize >= info.Size() {
		return 0
	}
	return free
}
