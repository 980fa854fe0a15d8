package main

import (
	"context"
	"os/exec"
	"syscall"
	"time"
)

func runGroup(ctx context.Context, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	return waitGroup(ctx, cmd)
}

// waitGroup is cmd.Wait for the leader of a process group, started with ctx. If
// ctx ended, what is left of the group is ended too, and killed after endGrace.
func waitGroup(ctx context.Context, cmd *exec.Cmd) error {
	err := cmd.Wait()
	if ctx.Err() == nil {
		return err
	}
	group := -cmd.Process.Pid // nobody else's as long as it has a member
	late := time.NewTimer(endGrace)
	defer late.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for signal := syscall.SIGTERM; syscall.Kill(group, signal) == nil; signal = 0 {
		select {
		case <-tick.C:
		case <-late.C:
			_ = syscall.Kill(group, syscall.SIGKILL)
			return err
		}
	}
	return err
}

// endWithGroup has cmd lead a process group that is told to end with its context,
// and is killed after endGrace.
func endWithGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = endGrace
}
