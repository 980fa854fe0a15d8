// Package process runs fastnd as processes in homes of their own, for tests and
// measurements that need the real thing: to be killed, frozen and measured from
// outside.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// patience bounds a start and a stop; the machine may be very busy.
const patience = time.Minute

// Build builds programs of this module into dir: "./cmd/fastnd".
func Build(ctx context.Context, dir string, packages ...string) error {
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	for _, p := range packages {
		args = append(args, "github.com/fastn-stack/fastnd/"+strings.TrimPrefix(p, "./"))
	}
	out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %v: %w\n%s", packages, err, out)
	}
	return nil
}

// Options of a daemon. The zero value logs to this process's standard error and
// listens on the loopback only.
type Options struct {
	Config []string          // more lines of fastn.toml
	Stderr io.Writer         // of the daemon
	Listen string            // the list in p2p.listen, default `"127.0.0.1"`
	Env    map[string]string // besides this process's
	Prefix []string          // a command that runs the daemon: ip netns exec x
	Dir    string            // where its home is made, by default where temporary files are
}

// Daemon is a fastnd of ours in a temporary home.
type Daemon struct {
	Home, Socket string
	Client       *client.Client // a program of this process's user; its owner is Daemon

	bin    string
	o      Options
	cmd    *exec.Cmd
	socket *os.File // of a system's daemon: what it is started with
}

// Start runs the fastnd in the folder bin in a new home and waits until it
// answers. It ends with Close, or is killed when ctx ends.
func Start(ctx context.Context, bin string, o Options) (*Daemon, error) {
	home, err := os.MkdirTemp(o.Dir, "fastn") // short: it holds a socket
	if err != nil {
		return nil, err
	}
	if o.Listen == "" {
		o.Listen = `"127.0.0.1"`
	}
	d := &Daemon{Home: home, Socket: filepath.Join(home, api.HomeSocket), bin: bin, o: o}
	d.Client = client.New(d.Socket, client.Options{Name: "test"})
	err = d.Configure(o.Config...)
	if err == nil {
		err = d.Run(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Configure writes fastn.toml, which counts at the next start or reload.
func (d *Daemon) Configure(lines ...string) error {
	head := []string{"[p2p]", "listen = [" + d.o.Listen + "]"}
	if d.socket != nil {
		head = append(head, "port = 0")
	}
	text := strings.Join(append(head, lines...), "\n") + "\n"
	return os.WriteFile(filepath.Join(d.Home, "fastn.toml"), []byte(text), 0o600)
}

// Run starts the daemon in its home, again after Stop or Kill, and waits until it
// answers.
func (d *Daemon) Run(ctx context.Context) error {
	run, env := []string{filepath.Join(d.bin, "fastnd"), "--home", d.Home}, []string(nil)
	if d.socket != nil {
		run, env = d.systemCommand()
	}
	args := append(append([]string{}, d.o.Prefix...), run...)
	d.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	d.cmd.Stderr = d.o.Stderr
	if d.o.Stderr == nil {
		d.cmd.Stderr = os.Stderr
	}
	if d.socket != nil {
		d.cmd.ExtraFiles = []*os.File{d.socket}
	}
	d.cmd.Env = append(os.Environ(), env...)
	for k, v := range d.o.Env {
		d.cmd.Env = append(d.cmd.Env, k+"="+v)
	}
	if err := d.cmd.Start(); err != nil {
		d.cmd = nil
		return err
	}
	return d.Ready(ctx)
}

// Ready waits until the daemon answers. One that does not is ended, and tells what
// it was at.
func (d *Daemon) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := d.Client.Hello(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			_ = d.Signal(syscall.SIGQUIT)
			return fmt.Errorf("the daemon does not answer: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// PID is the daemon's process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Signal sends sig: SIGSTOP freezes the daemon, SIGCONT lets it go on.
func (d *Daemon) Signal(sig syscall.Signal) error { return d.cmd.Process.Signal(sig) }

// Kill ends the daemon without a good-bye and waits for its end.
func (d *Daemon) Kill() error {
	if d.cmd == nil {
		return nil
	}
	err := d.cmd.Process.Kill()
	_ = d.cmd.Wait() // it was killed
	d.cmd = nil
	return err
}

// Stop ends the daemon as systemd does and waits for its end.
func (d *Daemon) Stop() error {
	if d.cmd == nil {
		return nil
	}
	cmd := d.cmd
	d.cmd = nil
	err := cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	return errors.Join(err, cmd.Wait())
}

// Close stops the daemon and removes its home.
func (d *Daemon) Close() error {
	if d.socket != nil {
		defer d.socket.Close()
	}
	return errors.Join(d.Client.Close(), d.Stop(), os.RemoveAll(d.Home))
}

// Join makes x and y contacts of one another, each under the name "peer".
func Join(ctx context.Context, x, y *Daemon) error {
	var inv api.Invitation
	if err := y.Client.Verb(ctx, api.VerbContactInvite, api.InviteArgs{For: "peer"}, &inv); err != nil {
		return err
	}
	return x.Client.Verb(ctx, api.VerbContactAdd, api.ContactAddArgs{Name: "peer", Ticket: inv.Ticket}, nil)
}

// Pair starts two daemons that are contacts: each calls the other "peer".
func Pair(ctx context.Context, bin string, o Options) (x, y *Daemon, err error) {
	if x, err = Start(ctx, bin, o); err != nil {
		return nil, nil, err
	}
	if y, err = Start(ctx, bin, o); err != nil {
		return nil, nil, errors.Join(err, x.Close())
	}
	if err = Join(ctx, x, y); err != nil {
		return nil, nil, errors.Join(err, x.Close(), y.Close())
	}
	return x, y, nil
}
