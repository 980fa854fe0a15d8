package p2p

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// portTries is how often a free port is looked for that both UDP and TCP have.
const portTries = 16

// listenIPs reads the addresses to listen on. A wildcard swallows the others of
// its family.
func listenIPs(list []string) ([]netip.Addr, error) {
	var ips []netip.Addr
	for _, s := range list {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("p2p.listen: %q is not an IP address", s)
		}
		if ip = ip.Unmap(); !slices.Contains(ips, ip) {
			ips = append(ips, ip)
		}
	}
	wild := func(is4 bool) bool {
		return slices.ContainsFunc(ips, func(ip netip.Addr) bool { return ip.IsUnspecified() && ip.Is4() == is4 })
	}
	wild4, wild6 := wild(true), wild(false)
	return slices.DeleteFunc(ips, func(ip netip.Addr) bool {
		return !ip.IsUnspecified() && (ip.Is4() && wild4 || ip.Is6() && wild6)
	}), nil
}

// listenError names the socket, why it cannot be had, and the setting.
type listenError struct {
	addr  netip.AddrPort
	proto string
	err   error
}

func (e *listenError) Error() string {
	if errors.Is(e.err, syscall.EADDRINUSE) {
		return fmt.Sprintf("port %d/%s of %s is taken by another program: free it, or choose another one with p2p.port",
			e.addr.Port(), e.proto, e.addr.Addr())
	}
	if errors.Is(e.err, syscall.EADDRNOTAVAIL) {
		return fmt.Sprintf("cannot listen on %s: it is no address of this machine, see p2p.listen", e.addr.Addr())
	}
	return fmt.Sprintf("cannot listen on %s, port %d/%s (p2p.listen, p2p.port): %v", e.addr.Addr(), e.addr.Port(), e.proto, e.err)
}

func (e *listenError) Unwrap() error { return e.err }

// boundSocket is an address that is listened on. TCP is bound by libp2p.
type boundSocket struct {
	addr  netip.AddrPort
	proto string       // "udp" or "tcp"
	udp   *net.UDPConn // nil for TCP
}

func closeSockets(list []boundSocket) {
	for _, b := range list {
		if b.udp != nil {
			_ = b.udp.Close()
		}
	}
}

// bindAll binds every UDP address and sees that every TCP address can be had,
// or fails and has bound none: libp2p is content with any one. With port 0 the
// first socket chooses, and all others must get the same number.
func bindAll(o Options) ([]boundSocket, error) {
	ips, err := listenIPs(o.Listen)
	if err != nil {
		return nil, err
	}
	for try := range portTries {
		list, failed := bindPort(o, ips, uint16(o.Port))
		switch {
		case failed == nil && len(list) == 0:
			return nil, errors.New("p2p.listen names no address that this machine can listen on")
		case failed == nil:
			return list, nil
		case o.Port != 0 || try == portTries-1 || !errors.Is(failed.err, syscall.EADDRINUSE):
			return nil, failed
		}
	}
	panic("p2p: not reached")
}

// bindPort tries one port.
func bindPort(o Options, ips []netip.Addr, port uint16) ([]boundSocket, *listenError) {
	var list []boundSocket
	for _, ip := range ips {
		for _, proto := range o.protos() {
			addr := netip.AddrPortFrom(ip, port)
			b, err := bindOne(addr, proto)
			if err != nil && ip.IsUnspecified() && noFamily(err) {
				o.Log.Info("the kernel lacks an address family, not listening there", "address", ip.String())
				break
			}
			if err != nil {
				closeSockets(list)
				return nil, &listenError{addr: addr, proto: proto, err: err}
			}
			port = b.addr.Port()
			list = append(list, b)
		}
	}
	return list, nil
}

func bindOne(addr netip.AddrPort, proto string) (boundSocket, error) {
	b := boundSocket{addr: addr, proto: proto}
	if proto == "udp" {
		conn, err := net.ListenUDP(familyOf(addr, proto), net.UDPAddrFromAddrPort(addr))
		if err != nil {
			return b, err
		}
		b.udp = conn
		b.addr = netip.AddrPortFrom(addr.Addr(), conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		return b, nil
	}
	l, err := net.ListenTCP(familyOf(addr, proto), net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return b, err
	}
	b.addr = netip.AddrPortFrom(addr.Addr(), l.Addr().(*net.TCPAddr).AddrPort().Port())
	return b, l.Close()
}

func (o Options) protos() []string {
	var p []string
	if o.QUIC {
		p = append(p, "udp")
	}
	if o.TCP {
		p = append(p, "tcp")
	}
	return p
}

// listen starts libp2p's listeners on what bindAll got.
func (h *Host) listen() error {
	for _, b := range h.bound {
		var maddr ma.Multiaddr
		var err error
		if b.udp != nil {
			maddr, err = h.quic.lend(b, h.rm)
		} else {
			maddr, err = toMultiaddr(b.addr, b.proto)
		}
		if err == nil {
			err = h.sw.AddListenAddr(maddr)
		}
		if err != nil {
			return &listenError{addr: b.addr, proto: b.proto, err: err}
		}
	}
	return nil
}

// noFamily tells that the kernel does not have IPv6, or IPv4.
func noFamily(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// toMultiaddr gives the address of a socket as peers write it.
func toMultiaddr(addr netip.AddrPort, proto string) (ma.Multiaddr, error) {
	ip, err := manet.FromIP(addr.Addr().AsSlice())
	if err != nil {
		return nil, err
	}
	suffix := "/" + proto + "/" + strconv.Itoa(int(addr.Port()))
	if proto == "udp" {
		suffix += "/quic-v1"
	}
	tail, err := ma.NewMultiaddr(suffix)
	if err != nil {
		return nil, err
	}
	return ip.Encapsulate(tail), nil
}
