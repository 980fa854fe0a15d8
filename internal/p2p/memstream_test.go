package p2p

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sys/unix"
)

// memStream is a stream that a peer opened, without a network: a socket pair,
// which has half-closes and deadlines as a stream has. What is not used of libp2p
// is nil, and would panic.
type memStream struct {
	network.Stream
	*net.UnixConn
	conn  *memConn
	scope *memScope
	peer  *memPeer
	code  atomic.Uint32 // of our reset; 0 if there was none
}

// memPeer is the other end.
type memPeer struct {
	conn    *net.UnixConn
	resetIt atomic.Bool
}

// reset ends both directions, and not cleanly.
func (p *memPeer) reset() {
	p.resetIt.Store(true)
	p.conn.Close()
}

type memConn struct {
	network.Conn
	remote peer.ID
	addr   ma.Multiaddr
}

func (c *memConn) IsClosed() bool                { return false }
func (c *memConn) RemotePeer() peer.ID           { return c.remote }
func (c *memConn) RemoteMultiaddr() ma.Multiaddr { return c.addr }
func (c *memConn) LocalMultiaddr() ma.Multiaddr  { return c.addr }

// memScope counts memory as the resource manager does.
type memScope struct {
	network.StreamScope
	held atomic.Int64
}

func (s *memScope) ReserveMemory(n int, _ uint8) error {
	s.held.Add(int64(n))
	return nil
}

func (s *memScope) ReleaseMemory(n int) { s.held.Add(-int64(n)) }

func newMemStream(t *testing.T, remote peer.ID) (*memStream, *memPeer) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "stream")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	p := &memPeer{conn: ends[1]}
	conn := &memConn{remote: remote, addr: ma.StringCast("/ip4/2.0.0.1/tcp/4100")}
	return &memStream{UnixConn: ends[0], conn: conn, scope: &memScope{}, peer: p}, p
}

func (s *memStream) Conn() network.Conn         { return s.conn }
func (s *memStream) Scope() network.StreamScope { return s.scope }

func (s *memStream) Read(b []byte) (int, error) {
	n, err := s.UnixConn.Read(b)
	return n, s.errorOf(err)
}

func (s *memStream) Write(b []byte) (int, error) {
	n, err := s.UnixConn.Write(b)
	return n, s.errorOf(err)
}

// errorOf makes an error what libp2p's muxers make of it.
func (s *memStream) errorOf(err error) error {
	switch {
	case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case s.peer.resetIt.Load():
		return &network.StreamError{Remote: true}
	case s.code.Load() != 0:
		return &network.StreamError{ErrorCode: network.StreamErrorCode(s.code.Load())}
	case errors.Is(err, io.EOF):
		return io.EOF
	}
	return err
}

func (s *memStream) Reset() error { return s.ResetWithError(1) }

func (s *memStream) ResetWithError(code network.StreamErrorCode) error {
	s.code.CompareAndSwap(0, uint32(code))
	return s.UnixConn.Close()
}

func (s *memStream) Close() error                       { return s.UnixConn.CloseWrite() }
func (s *memStream) CloseWrite() error                  { return s.UnixConn.CloseWrite() }
func (s *memStream) CloseRead() error                   { return s.UnixConn.CloseRead() }
func (s *memStream) SetDeadline(t time.Time) error      { return s.UnixConn.SetDeadline(t) }
func (s *memStream) SetReadDeadline(t time.Time) error  { return s.UnixConn.SetReadDeadline(t) }
func (s *memStream) SetWriteDeadline(t time.Time) error { return s.UnixConn.SetWriteDeadline(t) }
func (s *memStream) close()                             { s.UnixConn.Close() }
