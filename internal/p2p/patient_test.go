package p2p_test

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"golang.org/x/sys/unix"
)

// A packet that cannot leave while the address or the link is away is one that was
// lost; one that never could is an error.
func TestPacketsWithoutAWayAreLost(t *testing.T) {
	if !inNetns(t) {
		return
	}
	plug := func() {
		ip(t, "link", "add", "wire", "type", "veth", "peer", "name", "end")
		ip(t, "link", "set", "end", "up")
		ip(t, "link", "set", "wire", "up")
	}
	plug()
	for name, c := range map[string]struct{ addr, to string }{
		"IPv4": {"2.9.9.1/24", "2.9.9.2:9"}, "IPv6": {"2001:db9::1/64", "[2001:db9::2]:9"},
	} {
		t.Run(name, func(t *testing.T) {
			socket, err := net.ListenUDP("udp", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close()
			source, to := netip.MustParsePrefix(c.addr).Addr(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(c.to))
			send := func(to *net.UDPAddr) error {
				_, _, err := p2p.Patient(socket).WriteMsgUDP([]byte("x"), sentFrom(source), to)
				return err
			}
			sends := func(when string) {
				t.Helper()
				if err := send(to); err != nil {
					t.Errorf("%s: %v", when, err)
				}
			}
			add := func() { ip(t, "addr", "add", c.addr, "dev", "wire", "nodad") }
			if source.Is4() {
				add = func() { ip(t, "addr", "add", c.addr, "dev", "wire") }
			}
			add()
			sends("with the address")
			never := *to
			if never.Port = 0; !errors.Is(send(&never), syscall.EINVAL) {
				t.Error("a packet to no port is taken for one that was lost")
			}
			ip(t, "link", "set", "wire", "down")
			sends("while the link is down")
			ip(t, "link", "set", "wire", "up")
			ip(t, "addr", "flush", "dev", "wire")
			sends("without the address")
			add()
			ip(t, "link", "del", "wire")
			sends("without the link")
			plug()
		})
	}
}

// sentFrom asks for a source address, as quic-go does.
func sentFrom(ip netip.Addr) []byte {
	if ip.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: ip.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: ip.As16()})
}
