package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/fastn-stack/fastnd/service/api"
)

// dial connects to the daemon, if it is one that Options.Trust takes.
func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	conn, err := dial(ctx, c.path)
	if err != nil || c.o.Trust == nil {
		return conn, err
	}
	uid, err := listenerUID(conn)
	if err == nil && c.o.Trust(uid) {
		return conn, nil
	}
	conn.Close()
	if err != nil {
		return nil, unavailable(c.path, "who listens there cannot be told: "+err.Error())
	}
	return nil, unavailable(c.path, "user "+strconv.FormatUint(uint64(uid), 10)+" listens there, who is not trusted; nothing was sent").
		WithHint("name the socket of a daemon of yours, or of the system's, with --home or --socket")
}

// listenerUID is the uid of the process that called listen(2), SO_PEERCRED.
func listenerUID(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// dial connects to a socket. Its error is unavailable, and its hint says how to
// get there.
func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	if len(path) > api.MaxSocketPath {
		return nil, unavailable(path, fmt.Sprintf("the path of a socket may have %d bytes, this has %d", api.MaxSocketPath, len(path))).
			WithHint("choose a shorter one with --socket or --home")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		return conn.(*net.UnixConn), nil
	}
	if ctx.Err() != nil {
		return nil, contextError(ctx)
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return nil, unavailable(path, err.Error())
	}
	e := unavailable(path, errno.Error())
	switch errno {
	case syscall.EACCES, syscall.EPERM:
		return nil, e.WithHint("%s", accessHint(path))
	case syscall.ENOENT, syscall.ECONNREFUSED, syscall.ENOTDIR:
		return nil, e.WithHint("%s", startHint(path))
	}
	return nil, e
}

func unavailable(path, why string) *api.Error {
	return api.Errorf(api.CodeUnavailable, "cannot reach the fastn daemon at %s: %s", path, why)
}

func startHint(path string) string {
	if path == api.SystemSocket {
		return `start it with "systemctl enable --now fastn.socket"`
	}
	return `start it with "fastn daemon start"`
}

func accessHint(path string) string {
	if path != api.SystemSocket {
		return `this daemon is another user's; start your own with "fastn daemon start"`
	}
	return `you are not in group "fastn"; an administrator can add you with "adduser ` + userName() + ` fastn", then log in again`
}

// userName is the caller's login name, or how an administrator finds it out.
func userName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}
