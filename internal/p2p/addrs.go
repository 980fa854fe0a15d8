package p2p

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// maxAddrs bounds what is kept of one node, from any one source.
const maxAddrs = 32

// Addrs gives the multiaddrs under which peers may reach this node now, each
// with /p2p/NODEID: those announced, then public ones, loopback last, no
// wildcards.
func (h *Host) Addrs() []string {
	var out []string
	for _, m := range h.ownAddrs() {
		out = append(out, m.String()+"/p2p/"+h.sw.LocalPeer().String())
	}
	return out
}

// Ports gives the ports to open in a firewall, as "4100/udp".
func (h *Host) Ports() []string {
	var out []string
	for _, b := range h.bound {
		if s := fmt.Sprintf("%d/%s", b.addr.Port(), b.proto); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// ownAddrs computes the addresses from the sockets and the interfaces of this
// moment: libp2p's own list lags behind and knows sockets by lent names.
func (h *Host) ownAddrs() []ma.Multiaddr {
	var addrs []ma.Multiaddr
	interfaces := interfaceIPs()
	for _, b := range h.bound {
		ips := []netip.Addr{b.addr.Addr()}
		if b.addr.Addr().IsUnspecified() {
			ips = interfaces
		}
		for _, ip := range ips {
			if ip.Is4() != b.addr.Addr().Is4() {
				continue
			}
			if m, err := toMultiaddr(netip.AddrPortFrom(ip, b.addr.Port()), b.proto); err == nil {
				addrs = append(addrs, m)
			}
		}
	}
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int { return rank(a) - rank(b) })
	return distinct(append(slices.Clone(h.told.Load().announce), addrs...))
}

// distinct drops repetitions and keeps the order, which ma.Unique does not.
func distinct(addrs []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, m := range addrs {
		if !slices.ContainsFunc(out, m.Equal) {
			out = append(out, m)
		}
	}
	return out
}

// rank orders addresses by how far they reach.
func rank(m ma.Multiaddr) int {
	switch {
	case manet.IsIPLoopback(m):
		return 2
	case manet.IsPublicAddr(m):
		return 0
	}
	return 1
}

// interfaceIPs gives the addresses of this machine, without link-local ones,
// which mean nothing elsewhere.
func interfaceIPs() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(ipsOf(list), func(ip netip.Addr) bool { return ip.IsLinkLocalUnicast() || ip.IsMulticast() })
}

// ipsOf takes the masks off addresses of interfaces.
func ipsOf(list []net.Addr) []netip.Addr {
	var ips []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			ips = append(ips, p.Addr().Unmap())
		}
	}
	return ips
}

// parseAnnounce reads p2p.announce; a /p2p part must be this node's.
func parseAnnounce(list []string, node identity.ID) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for _, s := range list {
		m, err := parseAddr(s, node)
		if err != nil {
			return nil, fmt.Errorf("p2p.announce: %w", err)
		}
		out = append(out, m)
	}
	return out, nil
}

// parseAddr reads a multiaddr of node and takes its /p2p part off.
func parseAddr(s string, node identity.ID) (ma.Multiaddr, error) {
	m, err := ma.NewMultiaddr(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not a multiaddr", s)
	}
	rest, id := peer.SplitAddr(m)
	if id != "" && id != node.PeerID() {
		return nil, fmt.Errorf("%q belongs to another node", s)
	}
	if len(rest) == 0 {
		return nil, fmt.Errorf("%q has no address", s)
	}
	return rest, nil
}

// addrStrings writes addresses of a node for the address book: at most maxAddrs,
// loopback only if the peer is on this machine itself.
func addrStrings(addrs []ma.Multiaddr, p peer.ID, local bool) []string {
	var out []string
	for _, m := range addrs {
		if len(out) == maxAddrs {
			break
		}
		m, _ = peer.SplitAddr(m)
		if len(m) == 0 || len(m.Bytes()) > 256 || hasPath(m) || manet.IsIPUnspecified(m) || manet.IsIPLoopback(m) && !local {
			continue
		}
		out = append(out, m.String()+"/p2p/"+p.String())
	}
	return out
}

// hasPath tells addresses such as /unix/…, to whose path all that follows would
// belong, the node's id too.
func hasPath(m ma.Multiaddr) bool {
	return slices.ContainsFunc(m, func(c ma.Component) bool { return c.Protocol().Path })
}

// pathOf names the way a connection takes.
func pathOf(m ma.Multiaddr) string {
	for i, c := range m {
		switch c.Code() {
		case ma.P_CIRCUIT:
			via := "unknown"
			if i > 0 && m[i-1].Code() == ma.P_P2P {
				via = m[i-1].Value()
			}
			return "relayed via " + via
		case ma.P_QUIC_V1:
			return "direct quic"
		case ma.P_TCP:
			return "direct tcp"
		}
	}
	return "direct " + strings.TrimPrefix(m.String(), "/")
}

// ipOf gives the IP of a multiaddr, the zero Addr if it has none.
func ipOf(m ma.Multiaddr) netip.Addr {
	ip, err := manet.ToIP(m)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
