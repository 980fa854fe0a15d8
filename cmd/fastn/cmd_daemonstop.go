package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

const (
	stopTimeout = 30 * time.Second
	// slowStop is how long a daemon may take to end before a person is told.
	slowStop     = time.Second
	helloTimeout = 5 * time.Second
)

type daemonStopCmd struct {
	Force bool `help:"End it with SIGKILL: for one that hangs. What it acknowledged is on the disk and stays."`
}

func (*daemonStopCmd) Help() string {
	return `Returns when the process is gone.

Example:
  fastn daemon stop
  fastn daemon stop --force`
}

func (c *daemonStopCmd) run(a *app) error {
	p, own, err := a.ownDaemon()
	if err != nil {
		return err
	}
	if !own {
		return systemAction(a, "stop", "systemctl stop fastn.socket fastnd.service", false)
	}
	if _, err := os.Stat(p.home); errors.Is(err, fs.ErrNotExist) {
		return a.stopped(p, "none runs")
	}
	unlock, err := a.lockHome(p)
	switch {
	case errors.Is(err, syscall.EROFS): // nobody can start one there either
		return c.stopOwn(a, p)
	case err != nil:
		return err
	}
	defer unlock()
	return c.stopOwn(a, p)
}

func (c *daemonStopCmd) stopOwn(a *app, p place) error {
	proc, err := a.processAt(p)
	if err != nil {
		return err
	}
	if proc == nil { // without a socket it is still told by its lock
		if proc, err = holderProcess(p); err != nil {
			return err
		}
	}
	if proc == nil {
		return a.stopped(p, "none runs")
	}
	defer func() { _ = proc.Release() }()
	if c.Force {
		return c.kill(a, p, proc)
	}
	if err := suspended(p, proc.Pid); err != nil { // it would take no signal but SIGKILL
		return err
	}
	ctx, cancel := context.WithTimeout(a.ctx, stopTimeout)
	defer cancel()
	slow := time.AfterFunc(slowStop, func() { a.note("waiting for fastnd, pid %d, to end", proc.Pid) })
	defer slow.Stop()
	if err := a.askToStop(ctx, p); err != nil {
		if err := proc.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return api.Errorf(api.CodeNotPermitted, "cannot stop pid %d: %v", proc.Pid, err)
		}
	}
	if err := awaitExit(ctx, proc); err != nil {
		if a.ctx.Err() != nil {
			return a.ctx.Err()
		}
		return failed("fastnd, pid %d, still runs after %v", proc.Pid, stopTimeout).
			WithHint(`"fastn daemon stop --force" ends it at once; %s may tell what it waits for`, filepath.Join(p.home, logName))
	}
	return a.stopped(p, "stopped")
}

// kill ends a daemon that does not do it itself, and removes the socket that it
// leaves.
func (c *daemonStopCmd) kill(a *app, p place, proc *os.Process) error {
	ctx, cancel := context.WithTimeout(a.ctx, stopTimeout)
	defer cancel()
	if err := proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return api.Errorf(api.CodeNotPermitted, "cannot kill pid %d: %v", proc.Pid, err).
			WithHint("ask an administrator, or its owner")
	}
	if err := awaitExit(ctx, proc); err != nil {
		if a.ctx.Err() != nil {
			return a.ctx.Err()
		}
		return failed("fastnd, pid %d, was killed and is not gone after %v", proc.Pid, stopTimeout).
			WithHint("look whether its disk answers: the kernel waits for it")
	}
	if err := clearSocket(p); err != nil {
		return err
	}
	return a.stopped(p, "killed")
}

func (a *app) stopped(p place, text string) error {
	if a.flags.JSON {
		return a.printValue(report(p, nil))
	}
	a.note("%s", text)
	return nil
}

// askToStop uses the socket. Only what the daemon itself refuses for a reason
// that a signal would not cure is told apart by the caller's SIGTERM failing.
func (a *app) askToStop(ctx context.Context, p place) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	d := dial(p.socket, "")
	defer d.Close()
	_, err := d.Verb(ctx, api.VerbDaemonStop, struct{}{})
	if api.CodeOf(err) == api.CodeOutcomeUnknown {
		return nil // it ended before it answered
	}
	return err
}

// processAt finds the daemon's process by its socket, even if it answers no
// more: the kernel tells who listens. nil if nobody does.
func (a *app) processAt(p place) (*os.Process, error) {
	d := net.Dialer{Timeout: helloTimeout}
	conn, err := d.DialContext(a.ctx, "unix", p.socket)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, a.unreachable(p, err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return nil, failed("cannot tell which process serves %s: %v", p.socket, err)
	}
	if !trusted(p.socket)(cred.Uid) {
		return nil, api.Errorf(api.CodeUnavailable, "user %d listens at %s, who is not trusted", cred.Uid, p.socket).
			WithHint("name the folder of your own daemon with --home")
	}
	if cred.Pid <= 1 {
		return nil, usage("%s is served by systemd", p.socket).WithHint("stop it with systemctl")
	}
	proc, err := os.FindProcess(int(cred.Pid))
	if err != nil {
		return nil, failed("cannot find process %d: %v", cred.Pid, err)
	}
	if ended(raw) { // before it was found, so that its number may be another's
		return nil, proc.Release()
	}
	return proc, nil
}

// ended tells that the other end of a connection is gone.
func ended(raw syscall.RawConn) bool {
	gone := false
	err := raw.Control(func(fd uintptr) {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = n == 0 && err == nil || errors.Is(err, syscall.ECONNRESET)
	})
	return gone || err != nil
}

// awaitExit waits until proc, which is no child of ours, has ended.
func awaitExit(ctx context.Context, proc *os.Process) error {
	var pidfd *os.File
	err := proc.WithHandle(func(handle uintptr) {
		fd, _, errno := syscall.Syscall(syscall.SYS_FCNTL, handle, syscall.F_DUPFD_CLOEXEC, 0)
		if errno == 0 && syscall.SetNonblock(int(fd), true) == nil {
			pidfd = os.NewFile(fd, "pidfd")
		}
	})
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil || pidfd == nil {
		return awaitSignalFails(ctx, proc)
	}
	defer pidfd.Close()
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return awaitSignalFails(ctx, proc)
	}
	end := context.AfterFunc(ctx, func() { _ = pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer end()
	asked := false
	return raw.Read(func(uintptr) bool { // a pidfd is readable when its process has ended
		defer func() { asked = true }()
		return asked
	})
}

// awaitSignalFails is for kernels without pidfd_open.
func awaitSignalFails(ctx context.Context, proc *os.Process) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for proc.Signal(syscall.Signal(0)) == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// helloAt asks the daemon at p who it is, with a bound on the time.
func (a *app) helloAt(p place) (*api.Hello, error) {
	ctx, cancel := context.WithTimeout(a.ctx, helloTimeout)
	defer cancel()
	d := dial(p.socket, "")
	defer d.Close()
	h, err := d.Hello(ctx)
	if err != nil && a.ctx.Err() == nil && ctx.Err() != nil {
		return nil, a.unanswered(p)
	}
	if err != nil {
		return nil, a.explainAt(p, err)
	}
	return &h, nil
}
