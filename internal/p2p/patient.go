package p2p

import (
	"errors"
	"net"
	"syscall"

	"github.com/quic-go/quic-go"
)

// patientConn is a UDP socket that takes a packet which cannot leave the machine
// at this moment for one that was lost. quic-go closes a connection for good when
// a send fails, and so a link that is down for a moment would break all over it.
type patientConn struct{ *net.UDPConn }

var _ quic.OOBCapablePacketConn = patientConn{}

// WriteMsgUDP implements quic.OOBCapablePacketConn; quic-go sends with nothing else.
func (c patientConn) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = c.UDPConn.WriteMsgUDP(b, oob, to)
	if err != nil && noWayNow(err) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

// noWayNow tells that the network is to blame, which may change.
func noWayNow(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.ENETDOWN) || errors.Is(err, syscall.EHOSTUNREACH)
}
