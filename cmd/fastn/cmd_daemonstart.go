package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

const (
	logName  = "fastnd.log"
	lockName = "daemon.lock" // held while a start or stop is under way
	// maxLog is the size, in bytes, above which a start moves the log aside.
	maxLog       = 10 << 20
	startTimeout = 30 * time.Second
	// pollEvery is the time between two tries where nothing can be waited for.
	pollEvery = 5 * time.Millisecond
)

type daemonStartCmd struct{}

func (*daemonStartCmd) Help() string {
	return `Runs fastnd, the one beside fastn, in a session of its own, and returns once it answers. Its
output goes to fastnd.log in its folder.

Example:
  fastn daemon start
  fastn --home /tmp/alice daemon start`
}

func (*daemonStartCmd) run(a *app) error {
	p, own, err := a.ownDaemon()
	if err != nil {
		return err
	}
	if !own {
		return systemAction(a, "start", "systemctl enable --now fastn.socket", true)
	}
	unlock, err := a.claimHome(p)
	if err != nil {
		return err
	}
	defer unlock()
	return a.startOwn(p)
}

func (a *app) startOwn(p place) error {
	if err := a.suspendedAt(p); err != nil {
		return err
	}
	switch h, err := a.settledHello(p); {
	case err == nil:
		a.note("it runs already")
		return a.running(p, h)
	case api.CodeOf(err) != api.CodeUnavailable:
		return err
	}
	if err := noSocket(p); err != nil {
		return err
	}
	if err := clearSocket(p); err != nil {
		return err
	}
	program, err := findDaemon()
	if err != nil {
		return err
	}
	log, start, err := openLog(filepath.Join(p.home, logName))
	if err != nil {
		return err
	}
	defer log.Close()
	hadKey := p.hasNodeKey()
	cmd := exec.Command(program, "--home", p.home)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return failed("cannot run %s: %v", program, pathCause(err)).
			WithHint("install fastnd again: made for this machine, and executable for you")
	}
	h, err := a.awaitHello(p, cmd)
	if died, ok := errors.AsType[*diedEarly](err); ok {
		return a.lastWords(died, log, start)
	}
	if err != nil {
		return err
	}
	if !hadKey && p.hasNodeKey() { // not what one expects where the disk was not mounted
		a.note("the keys of a new node were made in %s", filepath.Join(p.home, "keystore"))
	}
	return a.running(p, h)
}

// hasNodeKey tells whether the folder has the key of a node.
func (p place) hasNodeKey() bool {
	_, err := os.Lstat(filepath.Join(p.home, "keystore", "node.key"))
	return !errors.Is(err, fs.ErrNotExist)
}

// running tells that the daemon runs.
func (a *app) running(p place, h *api.Hello) error {
	if a.flags.JSON {
		return a.printValue(report(p, h))
	}
	a.note("%s", runningText(p, h))
	return nil
}

// awaitHello returns once the daemon answers, or the child has ended.
func (a *app) awaitHello(p place, cmd *exec.Cmd) (*api.Hello, error) {
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(a.ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-exited:
			return nil, &diedEarly{err}
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM)
			<-exited
			if a.ctx.Err() != nil {
				return nil, a.ctx.Err()
			}
			return nil, failed("fastnd did not answer within %v and was stopped", startTimeout).
				WithHint("see %s", filepath.Join(p.home, logName))
		case <-tick.C:
			h, err := a.helloAt(p)
			if err == nil {
				return h, nil
			}
			if api.CodeOf(err) == api.CodeNotPermitted { // it runs, and will not serve us
				_ = cmd.Process.Signal(syscall.SIGTERM)
				<-exited
				return nil, err
			}
		}
	}
}

// diedEarly is how a daemon ended that never answered.
type diedEarly struct{ cause error }

func (d *diedEarly) Error() string {
	if d.cause == nil {
		return "it ended by itself"
	}
	return d.cause.Error()
}

// lastWords makes an error of what fastnd wrote last: its own error and hint,
// as all our programs print them, else the end of its log and how it ended.
func (a *app) lastWords(died *diedEarly, log *os.File, start int64) error {
	var lines []string
	scan := bufio.NewScanner(io.NewSectionReader(log, start, maxLog))
	for scan.Scan() {
		lines = append(lines, scan.Text())
	}
	reason, hint := died.Error(), fmt.Sprintf("its last words stand above; more is in %s", log.Name())
	told := false
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "fastnd: "); ok {
			reason, hint, told = text, "more is in "+log.Name(), true
		} else if text, ok := strings.CutPrefix(line, "hint: "); ok && told {
			hint = text
		}
	}
	const most = 10
	for _, line := range lines[max(0, len(lines)-most):] {
		if !told {
			fmt.Fprintln(a.std.Err, "  "+visible(line))
		}
	}
	return failed("fastnd did not start: %s", reason).WithHint("%s", hint)
}

// claimHome is lockHome of a folder that is made if it is not there.
func (a *app) claimHome(p place) (unlock func(), err error) {
	if err := os.MkdirAll(p.home, 0o700); err != nil {
		return nil, failed("cannot make the folder %s: %v", p.home, pathCause(err)).
			WithHint("%s", folderHint(err, "name a folder of your own with --home: one that is there, or can be made"))
	}
	if owner, ok := ownerOf(p.home); ok && owner != os.Geteuid() { // nothing of ours is left in it
		return nil, api.Errorf(api.CodeConflict, "the folder %s belongs to user %d: a daemon runs as the owner of its folder", p.home, owner).
			WithHint("name a folder of your own with --home, or run this as its owner")
	}
	return a.lockHome(p)
}

// ownerOf is the uid of a folder's owner; ok is false if that cannot be told.
func ownerOf(path string) (uid int, ok bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	return int(info.Sys().(*syscall.Stat_t).Uid), true
}

// unusable is a folder that a daemon cannot use, with the system's error behind it.
type unusable struct {
	error
	cause error
}

func (u unusable) Unwrap() []error { return []error{u.error, u.cause} }

// folderHint tells what to do where the disk takes nothing; else it is other.
func folderHint(err error, other string) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return "its disk is mounted read-only: make it writable, or name a folder on another disk with --home"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "its disk is full: make room there, or name a folder on another disk with --home"
	}
	return other
}

// lockHome keeps others from starting or stopping the same daemon meanwhile.
func (a *app) lockHome(p place) (unlock func(), err error) {
	path := filepath.Join(p.home, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, unusable{failed("cannot use the folder %s: %v", p.home, pathCause(err)).
			WithHint("%s", folderHint(err, "name a folder of your own with --home")), err}
	}
	if owner, ok := ownerOf(p.home); ok && os.Geteuid() == 0 {
		_ = f.Chown(owner, -1) // root, who stops it, would else lock its user out
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, failed("cannot lock %s: %v", path, err)
		}
		select {
		case <-a.ctx.Done():
			_ = f.Close()
			return nil, a.ctx.Err()
		case <-tick.C:
		}
	}
}

// clearSocket removes the socket that a dead daemon left. The caller found
// that nobody answers there, and holds the lock.
func clearSocket(p place) error {
	info, err := os.Lstat(p.socket)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode()&fs.ModeSocket == 0 {
		return api.Errorf(api.CodeConflict, "%s is in the way: it is not a socket", p.socket).
			WithHint("move it away, or name another folder with --home")
	}
	if err == nil {
		err = os.Remove(p.socket)
	}
	if err != nil {
		dir := filepath.Dir(p.socket)
		return failed("cannot remove the old socket %s: %v", p.socket, pathCause(err)).
			WithHint("%s", folderHint(err, "its folder must be writable for you: chmod 700 "+api.ShellQuote(dir)+", or name another with --home"))
	}
	return nil
}

// findDaemon looks for fastnd beside this program and where packages put it.
func findDaemon() (string, error) {
	looked := []string{"/usr/sbin/fastnd"}
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		looked = append([]string{filepath.Join(filepath.Dir(self), "fastnd")}, looked...)
	}
	for _, path := range looked {
		info, err := os.Stat(path)
		switch {
		case err != nil || !info.Mode().IsRegular():
		case info.Mode()&0o111 == 0:
			return "", failed("cannot run %s: it is not executable", path).WithHint("chmod 755 %s", api.ShellQuote(path))
		default:
			return path, nil
		}
	}
	return "", api.Errorf(api.CodeNotFound, "there is no fastnd at %s", strings.Join(looked, " or ")).
		WithHint("install fastnd beside fastn")
}

// openLog opens the daemon's log for appending, and tells where it ends now.
func openLog(path string) (f *os.File, end int64, err error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Size() > maxLog {
		_ = os.Rename(path, path+".1") // if not, it just grows
	}
	f, err = os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, 0, failed("cannot open the daemon's log %s: %v", path, pathCause(err)).
			WithHint("%s", folderHint(err, "move it away, or name another folder with --home"))
	}
	if end, err = f.Seek(0, io.SeekEnd); err != nil {
		_ = f.Close()
		return nil, 0, failed("cannot read the daemon's log %s: %v", path, pathCause(err))
	}
	return f, end, nil
}
