package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// daemon is a fastnd of ours in a temporary home.
type daemon struct {
	home, socket string
	cmd          *exec.Cmd
	client       *client.Client
}

// startDaemon runs fastnd until stop; lines are more of its configuration.
func (b *bench) startDaemon(ctx context.Context, lines ...string) (*daemon, error) {
	home, err := os.MkdirTemp("", "fastn-bench")
	if err != nil {
		return nil, err
	}
	d := &daemon{home: home, socket: filepath.Join(home, api.HomeSocket)}
	text := strings.Join(append([]string{"[p2p]", `listen = ["127.0.0.1"]`}, lines...), "\n") + "\n"
	if err := os.WriteFile(filepath.Join(home, "fastn.toml"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	d.cmd = exec.CommandContext(ctx, filepath.Join(b.bin, "fastnd"), "--home", home)
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	d.cmd.WaitDelay = 10 * time.Second
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	d.client = client.New(d.socket, client.Options{Name: "bench"})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err = d.client.Hello(ctx); err == nil {
			return d, nil
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(err, d.stop())
		}
	}
}

func (d *daemon) stop() error {
	errs := []error{d.client.Close()}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err == nil {
		errs = append(errs, d.cmd.Wait())
	}
	return errors.Join(append(errs, os.RemoveAll(d.home))...)
}

// pair starts two daemons that are contacts: each calls the other "peer".
func (b *bench) pair(ctx context.Context, lines ...string) (x, y *daemon, err error) {
	if x, err = b.startDaemon(ctx, lines...); err != nil {
		return nil, nil, err
	}
	if y, err = b.startDaemon(ctx, lines...); err != nil {
		return nil, nil, errors.Join(err, x.stop())
	}
	var inv api.Invitation
	err = y.client.Verb(ctx, api.VerbContactInvite, api.InviteArgs{For: "peer"}, &inv)
	if err == nil {
		err = x.client.Verb(ctx, api.VerbContactAdd, api.ContactAddArgs{Name: "peer", Ticket: inv.Ticket}, nil)
	}
	if err != nil {
		return nil, nil, errors.Join(err, x.stop(), y.stop())
	}
	return x, y, nil
}

// rss is the resident memory of a process, in KiB.
func rss(pid int) (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kib float64
		if n, _ := fmt.Sscanf(s.Text(), "VmRSS: %f kB", &kib); n == 1 {
			return kib, nil
		}
	}
	return 0, errors.New("no VmRSS")
}

// cpu is what a process has used so far.
func cpu(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0, errors.New("unreadable stat")
	}
	var user, system int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		return 0, err
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	return time.Duration(user+system) * tick, nil
}
