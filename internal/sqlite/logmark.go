package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// markSuffix is of a file that is beside the database while it is open, and says how
// long the log has become. SQLite takes a log that is gone or cut short for one in
// which nothing more was written.
const markSuffix = ".open"

// logMark is that file. It is written after the log was synced and not synced
// itself: it costs a commit nothing, and after a power cut says too little rather
// than too much.
type logMark struct {
	log string // its path

	mu   sync.Mutex
	f    *os.File // nil if the disk did not take it: then nothing is noticed
	size int64
}

// newLogMark begins one; the log only grows from here until the database is closed.
func newLogMark(path string) *logMark {
	m := &logMark{log: path + "-wal"}
	f, err := os.OpenFile(path+markSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, fileMode)
	if err == nil {
		m.f = f
		m.grown()
	}
	return m
}

// grown notes how long the log is. m may be nil.
func (m *logMark) grown() {
	if m == nil {
		return
	}
	// Not os.Stat, of which "go test" logs each to know when to run again: a test that
	// bounds the size of files would meet that log.
	var st syscall.Stat_t
	if err := syscall.Stat(m.log, &st); err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if size := st.Size; m.f != nil && size > m.size {
		if _, err := m.f.WriteAt(fmt.Appendf(nil, "%020d\n", size), 0); err == nil {
			m.size = size
		}
	}
}

// end removes it, durably, before the log may be removed. m may be nil.
func (m *logMark) end() error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.f == nil {
		return nil
	}
	name := m.f.Name()
	var mine, there syscall.Stat_t
	is := syscall.Fstat(int(m.f.Fd()), &mine) == nil && syscall.Stat(name, &there) == nil && same(mine, there)
	err := m.f.Close()
	if m.f = nil; !is {
		return err // it is of another disk
	}
	return errors.Join(err, ignoreAbsent(os.Remove(name)), syncDir(name))
}

// readMark gives what a mark says; 0 if that is nothing, as after a power cut.
func readMark(path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	b := make([]byte, 64)
	n, _ := io.ReadFull(f, b) // what is no mark says nothing
	was, _ := strconv.ParseInt(strings.TrimSpace(string(b[:n])), 10, 64)
	return was, f.Close()
}

// shortLog looks for a log that is shorter than it was when the database at path was
// last open, and keeps to be told that its end is lost. The mark goes: what it says
// ends when the log is read.
func shortLog(path string) error {
	was, err := readMark(path + markSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	cause := ""
	switch info, err := os.Stat(path + "-wal"); {
	case errors.Is(err, fs.ErrNotExist):
		cause = "the log of recent changes is missing"
	case err != nil:
		return err
	case info.Size() < was:
		cause = fmt.Sprintf("the log of recent changes has %d bytes and had %d", info.Size(), was)
	}
	if cause != "" && was > 0 {
		earlier, err := untold(path)
		if err != nil {
			return err
		}
		if err := (Recovery{LogLost: true, Cause: cause}).add(earlier).keep(path, recoverySuffix); err != nil {
			return err
		}
	}
	return errors.Join(ignoreAbsent(os.Remove(path+markSuffix)), syncDir(path))
}
