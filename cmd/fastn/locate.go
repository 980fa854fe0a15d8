package main

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// place is where a daemon's socket is.
type place struct {
	socket string
	home   string // of a per-user daemon; "" for the system's and for --socket
}

// locate finds the daemon in the order that client.ResolveSocket documents, and
// keeps what its hints need.
func (a *app) locate() (place, error) {
	if a.flags.Socket != "" {
		return place{socket: a.flags.Socket}, nil
	}
	if a.flags.Home != "" {
		return inHome(a.flags.Home)
	}
	if s := os.Getenv(api.EnvSocket); s != "" {
		return place{socket: s}, nil
	}
	if h := os.Getenv(api.EnvHome); h != "" {
		return inHome(h)
	}
	if s := client.ResolveSocket("", ""); s == api.SystemSocket {
		return place{socket: s}, nil
	}
	return defaultHome()
}

func defaultHome() (place, error) {
	dir, err := os.UserHomeDir()
	if err != nil {
		return place{}, usage("HOME is not set, so that the folder of your daemon is not known").
			WithHint(`set HOME, or name a folder with --home`)
	}
	return inHome(filepath.Join(dir, client.DefaultHome))
}

func inHome(dir string) (place, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return place{}, usage("bad home folder %q: %v", dir, err)
	}
	p := place{socket: filepath.Join(abs, api.HomeSocket), home: abs}
	if len(p.socket) > api.MaxSocketPath {
		return place{}, usage("the folder's path is too long: %s has %d bytes, a socket's path at most %d",
			p.socket, len(p.socket), api.MaxSocketPath).WithHint("name a shorter folder with --home")
	}
	return p, nil
}

// unreachable explains why no daemon answers at p, from the error of dialling.
func (a *app) unreachable(p place, cause error) *api.Error {
	reason := cause
	if errno, ok := errors.AsType[syscall.Errno](cause); ok {
		reason = errno
	}
	e := api.Errorf(api.CodeUnavailable, "cannot reach the fastn daemon at %s: %v", p.socket, reason)
	system := p.socket == api.SystemSocket
	switch {
	case system && errors.Is(cause, syscall.EACCES) && inGroup("fastn"):
		return e.WithHint(`you are in group "fastn", but the socket is not the group's any more; an administrator can make it anew with "systemctl restart fastn.socket"`)
	case system && errors.Is(cause, syscall.EACCES):
		return e.WithHint(`you are not in group "fastn"; an administrator can add you with "adduser %s fastn", then log in again`, userName())
	case errors.Is(cause, syscall.EACCES):
		return e.WithHint("this socket belongs to another user; use your own daemon, or ask its owner")
	case system && unitState(a.ctx, "fastn.socket")["ActiveState"] == "active":
		return e.WithHint(`its socket was removed; an administrator can make it anew with "systemctl restart fastn.socket"`)
	case system:
		return e.WithHint(`an administrator can start it with "systemctl enable --now fastn.socket"; or run your own with "fastn daemon start"`)
	case p.home != "" && errors.Is(cause, syscall.ENOTDIR):
		return e.WithHint("%s is no folder: name another one with --home", p.home)
	case p.home != "":
		return e.WithHint(`start it with "fastn daemon start"`)
	case errors.Is(cause, syscall.ENOENT), errors.Is(cause, syscall.ECONNREFUSED):
		return e.WithHint("no daemon serves this socket; check --socket and $%s", api.EnvSocket)
	}
	return e.WithHint(`check the path; "fastn version" tells whether a daemon answers`)
}

// inGroup tells whether this process has the group.
func inGroup(name string) bool {
	g, err := user.LookupGroup(name)
	if err != nil {
		return false
	}
	have, err := os.Getgroups()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(append(have, os.Getgid()), func(gid int) bool { return strconv.Itoa(gid) == g.Gid })
}

// userName is for texts: names need not be known to the system.
func userName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}
