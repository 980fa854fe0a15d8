package p2p

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
)

// maxQUICStreams is how many streams a peer may have open on a connection; the
// resource manager refuses sooner, with a code.
const maxQUICStreams = 65536

// quicSide owns the UDP sockets and the QUIC transports on them, lent to
// libp2p's connection manager: the only way to choose the quic.Config.
type quicSide struct {
	o        Options
	cm       *quicreuse.ConnManager
	resetKey quic.StatelessResetKey
	tokenKey quic.TokenGeneratorKey
	sockets  []*quicSocket
}

// quicSocket is one UDP socket with its QUIC transport.
type quicSocket struct {
	*quic.Transport
	side *quicSide
	addr netip.AddrPort // what it is bound to
	lent *net.UDPAddr   // under which it is known to the connection manager
	done <-chan struct{}
}

var _ quicreuse.QUICTransport = (*quicSocket)(nil)

func newQUICSide(o Options, rm network.ResourceManager) (*quicSide, error) {
	resetKey, err := deriveKey[quic.StatelessResetKey](o, "libp2p quic stateless reset key")
	if err != nil {
		return nil, err
	}
	tokenKey, err := deriveKey[quic.TokenGeneratorKey](o, "libp2p quic token generator key")
	if err != nil {
		return nil, err
	}
	cm, err := quicreuse.NewConnManager(resetKey, tokenKey,
		quicreuse.ConnContext(func(ctx context.Context, c *quic.ClientInfo) (context.Context, error) {
			return admit(ctx, c, rm)
		}),
		quicreuse.VerifySourceAddress(rm.VerifySourceAddress))
	if err != nil {
		return nil, fmt.Errorf("start QUIC: %w", err)
	}
	q := &quicSide{o: o, cm: cm, resetKey: resetKey, tokenKey: tokenKey}
	// For families without a socket of ours the manager dials from its own.
	*cm.ClientConfig() = *q.config(cm.ClientConfig())
	return q, nil
}

// deriveKey makes a secret that outlives a restart, so that a peer learns from
// its next packet that the old connection is gone (RFC 9000 §10.3).
func deriveKey[K ~[32]byte](o Options, purpose string) (K, error) {
	raw, err := o.Key.PrivKey().Raw()
	if err != nil {
		return K{}, errors.New("p2p: the node key has no bytes")
	}
	b, err := hkdf.Key(sha256.New, raw, nil, purpose, len(K{}))
	if err != nil {
		return K{}, fmt.Errorf("p2p: derive a key: %w", err)
	}
	return K(b), nil
}

// admit asks the resource manager before a handshake costs anything.
func admit(ctx context.Context, c *quic.ClientInfo, rm network.ResourceManager) (context.Context, error) {
	addr, err := quicreuse.ToQuicMultiaddr(c.RemoteAddr, quic.Version1)
	if err != nil {
		addr = nil
	}
	scope, err := rm.OpenConnection(network.DirInbound, false, addr)
	if err != nil {
		return ctx, err
	}
	ctx = network.WithConnManagementScope(ctx, scope)
	context.AfterFunc(ctx, scope.Done)
	return ctx, nil
}

// config is libp2p's with our windows. The connection's window holds the whole
// budget of stalled streams at their largest, from the start: no stream waits
// for another one's reader. What strangers may fill of it is bounded by the
// number of their streams.
func (q *quicSide) config(c *quic.Config) *quic.Config {
	c = c.Clone()
	c.MaxIncomingStreams = maxQUICStreams
	// Only WebTransport has these: nobody here would ever read them.
	c.MaxIncomingUniStreams = -1
	c.EnableDatagrams = false
	c.InitialStreamReceiveWindow = uint64(q.o.WindowInitial)
	c.MaxStreamReceiveWindow = uint64(q.o.WindowMax)
	// One stream more than the budget, for those that are read.
	whole := uint64(q.o.StalledStreams+1) * uint64(q.o.WindowMax)
	c.InitialConnectionReceiveWindow = whole
	c.MaxConnectionReceiveWindow = whole
	c.KeepAlivePeriod = q.o.Timing.Idle / 2
	c.MaxIdleTimeout = q.o.Timing.Idle
	return c
}

// lend hands a socket to libp2p; it returns the multiaddr to listen on there.
// The socket is closed by close.
func (q *quicSide) lend(b boundSocket, rm network.ResourceManager) (ma.Multiaddr, error) {
	s := &quicSocket{side: q, addr: b.addr, lent: q.lentAddr(b.addr)}
	s.Transport = &quic.Transport{
		Conn:                patientConn{b.udp},
		StatelessResetKey:   &q.resetKey,
		TokenGeneratorKey:   &q.tokenKey,
		VerifySourceAddress: rm.VerifySourceAddress,
		ConnContext: func(ctx context.Context, c *quic.ClientInfo) (context.Context, error) {
			return admit(ctx, c, rm)
		},
	}
	done, err := q.cm.LendTransport(familyOf(b.addr, "udp"), s, lentConn{PacketConn: b.udp, addr: s.lent})
	if err != nil {
		return nil, err
	}
	s.done = done
	q.sockets = append(q.sockets, s)
	return quicreuse.ToQuicMultiaddr(s.lent, quic.Version1)
}

// lentAddr is the name of a socket for the connection manager, which takes only
// wildcards, one per family and port. A second socket of a family gets a port
// number that is nobody's; addresses for peers come from ownAddrs.
func (q *quicSide) lentAddr(addr netip.AddrPort) *net.UDPAddr {
	ip := net.IPv4zero
	if addr.Addr().Is6() {
		ip = net.IPv6zero
	}
	a := &net.UDPAddr{IP: ip, Port: int(addr.Port())}
	for n, s := range q.sockets {
		if s.lent.IP.Equal(ip) && s.lent.Port == a.Port {
			a.Port = n + 1
		}
	}
	return a
}

// lentConn is a socket under another address; only LocalAddr is ever called.
type lentConn struct {
	net.PacketConn
	addr *net.UDPAddr
}

func (c lentConn) LocalAddr() net.Addr { return c.addr }

func (s *quicSocket) Listen(t *tls.Config, c *quic.Config) (quicreuse.QUICListener, error) {
	return s.Transport.Listen(t, s.side.config(c))
}

func (s *quicSocket) Dial(ctx context.Context, to net.Addr, t *tls.Config, c *quic.Config) (*quic.Conn, error) {
	return s.side.socketFor(to, s).Transport.Dial(ctx, to, t, s.side.config(c))
}

// socketFor picks the socket from whose address the kernel would send to to,
// def if there is only one or none fits.
func (q *quicSide) socketFor(to net.Addr, def *quicSocket) *quicSocket {
	u, ok := to.(*net.UDPAddr)
	if !ok || len(q.sockets) == 1 {
		return def
	}
	source := sourceFor(u.AddrPort().Addr())
	for _, s := range q.sockets {
		if s.addr.Addr() == source && source.IsValid() {
			return s
		}
	}
	return def
}

// close ends the transports after the host has closed; the sockets are the
// host's.
func (q *quicSide) close() error {
	err := q.cm.Close()
	for _, s := range q.sockets {
		<-s.done
		err = errors.Join(err, s.Transport.Close())
	}
	return err
}

// sourceFor asks the kernel's routes from which address it would send to to;
// nothing is sent. The zero Addr if there is no route.
func sourceFor(to netip.Addr) netip.Addr {
	conn, err := (&net.Dialer{Timeout: time.Second}).Dial("udp", netip.AddrPortFrom(to, 9).String())
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}

// familyOf gives "udp4" or "udp6" for "udp".
func familyOf(addr netip.AddrPort, proto string) string {
	if addr.Addr().Is4() {
		return proto + "4"
	}
	return proto + "6"
}
