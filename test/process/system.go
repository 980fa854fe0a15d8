package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// Group is the number of group "fastn" for a daemon of StartSystem.
const Group = 54000

// StartSystem is Start for a daemon of the whole machine, as systemd would start
// it: root and all members of Group may use it. Only root can start one. The
// daemon finds the group in a file that covers /etc/group for it alone.
func StartSystem(ctx context.Context, bin string, o Options) (*Daemon, error) {
	home, err := os.MkdirTemp(o.Dir, "fastn")
	if err != nil {
		return nil, err
	}
	if o.Listen == "" {
		o.Listen = `"127.0.0.1"`
	}
	d := &Daemon{Home: home, Socket: filepath.Join(home, api.HomeSocket), bin: bin, o: o}
	d.Client = client.New(d.Socket, client.Options{Name: "test"})
	if err = d.prepareSystem(); err == nil {
		err = d.Run(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Daemon) prepareSystem() error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.Socket})
	if err != nil {
		return err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if d.socket, err = l.File(); err != nil {
		return err
	}
	groups := fmt.Sprintf("root:x:0:\nfastn:x:%d:\n", Group)
	return errors.Join(
		os.Chmod(d.Home, 0o711), os.Chmod(d.Socket, 0o666),
		os.Mkdir(d.path("state"), 0o700), os.WriteFile(d.path("group"), []byte(groups), 0o644),
		d.Configure(d.o.Config...))
}

func (d *Daemon) path(name string) string { return filepath.Join(d.Home, name) }

// systemCommand is what runs a system's daemon. The shell knows the pid that
// LISTEN_PID must name.
func (d *Daemon) systemCommand() (args, env []string) {
	script := `mount --bind "$1" /etc/group && shift && LISTEN_PID=$$ exec "$@"`
	args = []string{"unshare", "--mount", "/bin/sh", "-c", script, "sh", d.path("group"),
		filepath.Join(d.bin, "fastnd"), "--config", d.path("fastn.toml")}
	return args, []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=control", "STATE_DIRECTORY=" + d.path("state")}
}
