package p2p

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// patientConn is a UDP socket that takes a packet which cannot leave the machine
// at this moment for one that was lost. quic-go closes a connection for good when
// a send fails, and so a link that is down for a moment would break all over it.
type patientConn struct{ *net.UDPConn }

var _ quic.OOBCapablePacketConn = patientConn{}

// WriteMsgUDP implements quic.OOBCapablePacketConn; quic-go sends with nothing else.
func (c patientConn) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = c.UDPConn.WriteMsgUDP(b, oob, to)
	if errors.Is(err, syscall.EPERM) { // a new socket's first may fail: https://github.com/golang/go/issues/63322
		n, oobn, err = c.UDPConn.WriteMsgUDP(b, oob, to)
	}
	if err != nil && (noWayNow(err) || errors.Is(err, syscall.EINVAL) && sourceGone(oob)) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

// noWayNow tells that the network is to blame, which may change.
func noWayNow(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTUNREACH, // no route
		syscall.EADDRNOTAVAIL, syscall.ENODEV, // no address, no link
		syscall.EPERM, syscall.ENOBUFS: // a packet filter, a full queue
		return true
	}
	return false
}

// sourceGone tells that the address which oob asks to send from is none of this
// machine's: with IPv6, a link that is down has none. The kernel says EINVAL then,
// as it does of packets that can never be sent.
func sourceGone(oob []byte) bool {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for _, m := range list {
		var ip netip.Addr
		switch h := m.Header; {
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			ip = netip.AddrFrom16([16]byte(m.Data))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(m.Data) >= 8:
			ip = netip.AddrFrom4([4]byte(m.Data[4:]))
		default:
			continue
		}
		have, err := net.InterfaceAddrs()
		return err == nil && !slices.Contains(ipsOf(have), ip.Unmap())
	}
	return false
}
