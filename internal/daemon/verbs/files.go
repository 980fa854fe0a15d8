package verbs

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/service/api"
)

// keyReadTimeout bounds how long the key of an import may take to arrive.
const keyReadTimeout = 10 * time.Second

// filesAtOnce bounds the files of one user that are read or written at a time: a
// file system of the user's own making (FUSE) can make that take for ever, which
// costs a thread, and no deadline ends it.
const filesAtOnce = 2

// fileTurns counts them. The zero value is ready.
type fileTurns struct {
	mu   sync.Mutex
	used map[uint32]int
}

func (t *fileTurns) enter(uid uint32) (leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.used[uid] >= filesAtOnce {
		return nil, api.Errorf(api.CodeOverBudget, "over budget: %d files of yours are being read or written", filesAtOnce).
			WithHint("wait until one of them is done")
	}
	if t.used == nil {
		t.used = make(map[uint32]int)
	}
	t.used[uid]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.used[uid]--; t.used[uid] == 0 {
			delete(t.used, uid)
		}
	}, nil
}

// onlyOwn refuses to write what holds keys where others can read it: the file must
// be the caller's own regular file, empty, without rights for anybody else.
func onlyOwn(f *os.File, uid uint32, what string) error {
	var st unix.Stat_t
	if err := fstat(f, &st); err != nil {
		return err
	}
	if err := writable(f, what); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return api.Errorf(api.CodeBadRequest, "a %s is written to a regular file only", what)
	case st.Mode&0o077 != 0:
		return api.Errorf(api.CodeBadRequest, "the file to write the %s to has mode %04o, others could read it", what, st.Mode&0o7777).
			WithHint("use a new file of mode 0600")
	case st.Uid != uid:
		return api.Errorf(api.CodeBadRequest, "the file to write the %s to is not yours", what)
	case st.Size != 0: // a tail of what was there would make it unreadable
		return api.Errorf(api.CodeBadRequest, "the file to write the %s to is not empty", what).
			WithHint("use a new file of mode 0600")
	}
	return nil
}

// writable refuses a descriptor that was not opened for writing.
func writable(f *os.File, what string) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return api.Errorf(api.CodeBadRequest, "descriptor: %v", err)
	}
	var flags int
	var flagsErr error
	if err := raw.Control(func(fd uintptr) { flags, flagsErr = unix.FcntlInt(fd, unix.F_GETFL, 0) }); err != nil {
		return api.Errorf(api.CodeBadRequest, "descriptor: %v", err)
	}
	switch mode := flags & unix.O_ACCMODE; {
	case flagsErr != nil:
		return api.Errorf(api.CodeBadRequest, "descriptor: %v", flagsErr)
	case flags&unix.O_PATH != 0, mode != unix.O_WRONLY && mode != unix.O_RDWR:
		return api.Errorf(api.CodeBadRequest, "the descriptor to write the %s to is not open for writing", what)
	}
	return nil
}

// readable refuses what has no end: f is a regular file, or a pipe or socket,
// which gets a deadline.
func readable(f *os.File) error {
	var st unix.Stat_t
	if err := fstat(f, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFIFO, unix.S_IFSOCK:
		if err := f.SetReadDeadline(time.Now().Add(keyReadTimeout)); err != nil {
			return api.Errorf(api.CodeBadRequest, "the descriptor of the key must be non-blocking: %v", err)
		}
		return nil
	}
	return api.Errorf(api.CodeBadRequest, "a key is read from a file or a pipe only")
}

func fstat(f *os.File, st *unix.Stat_t) error {
	if f == nil {
		return api.Errorf(api.CodeBadRequest, "this request needs one descriptor")
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return api.Errorf(api.CodeBadRequest, "descriptor: %v", err)
	}
	var statErr error
	if err := raw.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), st) }); err != nil {
		return api.Errorf(api.CodeBadRequest, "descriptor: %v", err)
	}
	if statErr != nil {
		return api.Errorf(api.CodeBadRequest, "descriptor: %v", statErr)
	}
	return nil
}
