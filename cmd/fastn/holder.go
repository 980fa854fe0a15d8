package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/fastn-stack/fastnd/service/api"
)

// daemonLock is what fastnd holds with flock(2) in its folder while it lives.
const daemonLock = "fastnd.lock"

// locksLooks is how often /proc/locks is read before a lock counts as free: the
// kernel hands it out a page at a time, and where another process lets go of
// its lock in between, one that is held is skipped (1 in 1,000 on a busy machine).
const locksLooks = 5

// holder is the pid of the daemon that lives in p's folder, by its lock: it is
// found even where the socket is gone. 0 if there is none.
func holder(p place) int {
	if p.home == "" {
		return 0
	}
	info, err := os.Lstat(filepath.Join(p.home, daemonLock))
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	inode := strconv.FormatUint(info.Sys().(*syscall.Stat_t).Ino, 10)
	for range locksLooks {
		if pid := lockHolder(inode); pid > 0 {
			return pid
		}
	}
	return 0
}

// lockHolder looks once for the fastnd that holds the lock of an inode.
func lockHolder(inode string) int {
	locks, err := os.ReadFile("/proc/locks") // flock has no way to ask who holds it
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(locks)) {
		if pid := flockOwner(line, inode); pid > 0 && isDaemon(pid) {
			return pid
		}
	}
	return 0
}

// flockOwner reads a line of /proc/locks, proc_locks(5):
//
//	1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF
//
// The device is not compared: on some file systems it is not that of stat(2).
func flockOwner(line, inode string) int {
	f := strings.Fields(line)
	if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], ":"+inode) {
		return 0
	}
	pid, err := strconv.Atoi(f[4])
	if err != nil {
		return 0
	}
	return pid
}

// isDaemon tells whether pid is a fastnd of this user. What tells the program
// for certain, exe, only an administrator may read: fastnd is not dumpable.
func isDaemon(pid int) bool {
	if s := processStatus(pid); s["Name"] != "fastnd" || s["Uid"] != strconv.Itoa(os.Getuid()) {
		return false
	}
	exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	return err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == "fastnd"
}

// processStatus reads proc_pid_status(5): the first word of each value, which of
// the uids is the real one. Empty if there is no such process.
func processStatus(pid int) map[string]string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return nil
	}
	status := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if f := strings.Fields(value); len(f) > 0 {
			status[key] = f[0]
		}
	}
	return status
}

// noSocket is the error for a daemon that lives and cannot be reached; nil if
// none lives in p's folder.
func noSocket(p place) error {
	pid := holder(p)
	if pid == 0 {
		return nil
	}
	state := "does not answer"
	if _, err := os.Lstat(p.socket); errors.Is(err, fs.ErrNotExist) {
		state = "is gone"
	}
	return api.Errorf(api.CodeConflict, "fastnd, pid %d, holds %s, but its socket %s %s",
		pid, filepath.Join(p.home, daemonLock), p.socket, state).
		WithHint(`end it with "fastn daemon stop", then "fastn daemon start"`)
}

// holderProcess is the process of holder; nil if there is none.
func holderProcess(p place) (*os.Process, error) {
	pid := holder(p)
	if pid == 0 {
		return nil, nil
	}
	proc, err := os.FindProcess(pid)
	if err != nil {
		return nil, failed("cannot find process %d: %v", pid, err)
	}
	if holder(p) != pid { // before it was found, so that its number may be another's
		return nil, proc.Release()
	}
	return proc, nil
}
