// Package peercred tells who is at the other end of a Unix socket, from the
// kernel, and whether that user may use fastn.
package peercred

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cred is what the kernel recorded when the peer connected. It stays so for
// the connection's life, whatever becomes of the process and its groups.
type Cred struct {
	// PID is 0 if the process is in a PID namespace this one cannot see.
	PID int32
	UID uint32
	// GID is the primary group.
	GID uint32
	// Groups are the supplementary groups, in no particular order.
	Groups []uint32
}

// From reads the credentials of conn's peer (SO_PEERCRED, SO_PEERGROUPS; see
// socket(7)). Errors are those of the system calls.
func From(conn *net.UnixConn) (Cred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Cred{}, fmt.Errorf("peer credentials: %w", err)
	}
	var c Cred
	var inner error
	if err := raw.Control(func(fd uintptr) { c, inner = fromFD(int(fd)) }); err != nil {
		return Cred{}, fmt.Errorf("peer credentials: %w", err)
	}
	if inner != nil {
		return Cred{}, fmt.Errorf("peer credentials: %w", inner)
	}
	return c, nil
}

func fromFD(fd int) (Cred, error) {
	u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Cred{}, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return Cred{}, fmt.Errorf("SO_PEERGROUPS: %w", err)
	}
	return Cred{PID: u.Pid, UID: u.Uid, GID: u.Gid, Groups: groups}, nil
}

// peerGroups has no helper in x/sys. The kernel answers ERANGE with the length
// it needs, at most NGROUPS_MAX (65,536) groups.
func peerGroups(fd int) ([]uint32, error) {
	const most = 65536
	for groups := make([]uint32, 64); ; {
		size := uint32(len(groups)) * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(groups))), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errors.Is(errno, unix.ERANGE) && size/4 > uint32(len(groups)) && size/4 <= most:
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}

// InGroup tells whether gid is the peer's primary or a supplementary group.
func (c Cred) InGroup(gid uint32) bool { return c.GID == gid || slices.Contains(c.Groups, gid) }
