// Package systemd is fastnd's side of what systemd offers: sockets passed at
// start, readiness and watchdog messages, the journal, and the memory limit of
// the control group. Without systemd every part does nothing or falls back.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
)

// Sockets are the sockets systemd passed, by the FileDescriptorName= of their
// unit; several sockets of one unit share a name. Their order is not stable
// between starts, so nothing may depend on it. The receiver closes them.
type Sockets struct {
	Listeners   map[string][]net.Listener
	PacketConns map[string][]net.PacketConn
}

// Inherit takes over all sockets passed to this process, at most once: the
// environment variables are removed, so that children do not take them too,
// and a second call finds none. On an error all are closed. Without passed
// sockets the maps are empty.
//
// Closing a listener does not remove the file of a Unix socket: it is
// systemd's.
func Inherit() (Sockets, error) {
	s := Sockets{Listeners: map[string][]net.Listener{}, PacketConns: map[string][]net.PacketConn{}}
	var failed error
	for _, f := range activation.Files(true) {
		if err := s.add(f); err != nil {
			failed = errors.Join(failed, err)
		}
		// The net package works on a duplicate.
		if err := f.Close(); err != nil {
			failed = errors.Join(failed, fmt.Errorf("passed socket %q: %w", f.Name(), err))
		}
	}
	if failed != nil {
		return Sockets{}, errors.Join(failed, s.Close())
	}
	return s, nil
}

// Listeners is [Inherit] for those who take only listening sockets; a passed
// datagram socket is an error.
func Listeners() (map[string][]net.Listener, error) {
	s, err := Inherit()
	if err != nil {
		return nil, err
	}
	if len(s.PacketConns) > 0 {
		return nil, errors.Join(errors.New("systemd passed a datagram socket that nobody takes"), s.Close())
	}
	return s.Listeners, nil
}

// Close closes every socket that was passed.
func (s Sockets) Close() error {
	var all error
	for _, group := range s.Listeners {
		for _, l := range group {
			all = errors.Join(all, l.Close())
		}
	}
	for _, group := range s.PacketConns {
		for _, c := range group {
			all = errors.Join(all, c.Close())
		}
	}
	return all
}

func (s Sockets) add(f *os.File) error {
	l, lerr := net.FileListener(f)
	if lerr == nil {
		s.Listeners[f.Name()] = append(s.Listeners[f.Name()], l)
		return nil
	}
	c, perr := net.FilePacketConn(f)
	if perr != nil {
		return fmt.Errorf("passed descriptor %q is not a socket to listen on: %w", f.Name(), lerr)
	}
	s.PacketConns[f.Name()] = append(s.PacketConns[f.Name()], c)
	return nil
}
