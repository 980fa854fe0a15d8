package client

import (
	"context"
	"errors"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/fastn-stack/fastnd/service/api"
)

// maxSocketPath is what sockaddr_un takes, unix(7), less the final zero byte.
const maxSocketPath = 107

// dial connects to the daemon. Its error is unavailable, and its hint says how to
// get there.
func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	if len(path) > maxSocketPath {
		return nil, unavailable(path, "the path of a socket may have 107 bytes, this has "+strconv.Itoa(len(path))).
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
