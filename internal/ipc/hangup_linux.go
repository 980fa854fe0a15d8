package ipc

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// waitHangup returns nil when the peer of uc, which has ended its direction, has
// closed the connection altogether; else the error of the read deadline or of
// a closed connection. It takes the place of a Read. See poll(2): a shutdown of
// one direction is POLLRDHUP, of both POLLHUP.
func waitHangup(uc *net.UnixConn) error {
	raw, err := uc.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool { return hungUp(int32(fd)) })
}

// peerClosed tells whether the peer of uc has closed the connection altogether. It
// cannot be told from a shutdown of the peer's direction once ours is shut down.
func peerClosed(uc *net.UnixConn) (closed bool) {
	raw, err := uc.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) { closed = hungUp(int32(fd)) })
	return closed || err != nil
}

func hungUp(fd int32) bool {
	p := []unix.PollFd{{Fd: fd}}
	for {
		n, err := unix.Poll(p, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err != nil || n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	}
}

// hangUp closes uc so that its peer sees an end of file, as PROTOCOL.md promises: to
// close a socket with bytes unread is a reset to the other side. Once both
// directions are shut down nothing new can come in, so what has come is at most
// what a socket holds.
func hangUp(uc *net.UnixConn) {
	if raw, err := uc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // fails only if it is closed
			_ = unix.Shutdown(int(fd), unix.SHUT_RDWR)
			drop := make([]byte, 4<<10)
			for {
				n, err := unix.Read(int(fd), drop) // never waits: it is shut down
				if n <= 0 && !errors.Is(err, unix.EINTR) {
					return
				}
			}
		})
	}
	_ = uc.Close()
}
