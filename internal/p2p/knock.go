package p2p

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
)

// graceMin is what a handshake gets at least beyond the answer that nobody
// listens: a packet filter may refuse a knock and yet pass the connection.
const graceMin = 100 * time.Millisecond

// knocks are the times between packets of a knock; one may be lost.
var knocks = [...]time.Duration{300 * time.Millisecond, time.Second, 3 * time.Second}

// quicDialer is libp2p's QUIC transport, but a dial ends soon after the other
// machine said (ICMP) that nobody listens there. A UDP socket that is not
// connected is not told, so QUIC itself would wait for a timeout.
type quicDialer struct{ transport.Transport }

// Dial implements transport.Transport.
func (d quicDialer) Dial(ctx context.Context, to ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	addr, ok := udpOf(to)
	if punch, _, _ := network.GetSimultaneousConnect(ctx); punch || !ok {
		return d.Transport.Dial(ctx, to, p)
	}
	ctx, cancel := context.WithCancel(ctx)
	refused := make(chan error, 1)
	go func() {
		began := time.Now()
		err := knock(ctx, addr)
		if err != nil && wait(ctx, time.Since(began)+graceMin) {
			cancel()
		}
		refused <- err
	}()
	c, err := d.Transport.Dial(ctx, to, p)
	cancel()
	if why := <-refused; err != nil && why != nil {
		return nil, why
	}
	return c, err
}

// ListenOrder implements what the swarm asks of the transport beneath.
func (d quicDialer) ListenOrder() int {
	if l, ok := d.Transport.(interface{ ListenOrder() int }); ok {
		return l.ListenOrder()
	}
	return 0
}

// Close implements io.Closer, which the swarm looks for.
func (d quicDialer) Close() error {
	if c, ok := d.Transport.(interface{ Close() error }); ok {
		return c.Close()
	}
	return nil
}

func udpOf(m ma.Multiaddr) (netip.AddrPort, bool) {
	u, _, err := quicreuse.FromQuicMultiaddr(m)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return u.AddrPort(), true
}

// knock sends a byte that no QUIC endpoint answers, and tells what the network
// says to that: nobody listens there, or there is no way. It is nil if it says
// nothing until ctx ends.
func knock(ctx context.Context, to netip.AddrPort) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", to.String())
	if err != nil {
		return unlessEnded(ctx, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for _, pause := range knocks {
		_ = conn.SetReadDeadline(time.Now().Add(pause))
		if ctx.Err() != nil {
			return nil
		}
		if _, err = conn.Write([]byte{0}); err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		if err == nil {
			return nil // somebody is there, who says what they will
		}
		if !isTimeout(err) {
			return unlessEnded(ctx, err)
		}
	}
	return nil
}

// unlessEnded keeps of err what the network said.
func unlessEnded(ctx context.Context, err error) error {
	var errno syscall.Errno
	if ctx.Err() != nil || !errors.As(err, &errno) {
		return nil
	}
	return errno
}

// wait is true once d is over, false if ctx ended before.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
