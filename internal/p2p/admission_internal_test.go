package p2p

import (
	"net/netip"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestNetworkIsOneCustomer(t *testing.T) {
	for ip, want := range map[string]string{
		"2.0.0.1": "2.0.0.1/32", "::ffff:2.0.0.1": "2.0.0.1/32", "127.0.0.1": "127.0.0.1/32",
		"2001:db9:0:ff::1%eth0": "2001:db9::/56", "2001:db9:0:100::1": "2001:db9:0:100::/56",
	} {
		if got := Network(netip.MustParseAddr(ip)); got.String() != want {
			t.Errorf("%s is in %v, not %s", ip, got, want)
		}
	}
	if Network(netip.Addr{}).IsValid() || sourcePrefix(netip.MustParseAddr("::1")).IsValid() {
		t.Error("what is no address, or bounded nowhere, is one")
	}
}

// What is unproven is bounded by node, by address and in all, and given back.
func TestUnprovenIsBounded(t *testing.T) {
	var s strangers
	s.init(Options{MemoryLimit: 16 * 64, WindowInitial: 1}) // 64 in all
	count := func(host byte) (n int) {
		for node := range 10 {
			for s.takeStream(peer.ID([]byte{host, byte(node)}), Network(netip.AddrFrom4([4]byte{2, 0, 0, host}))) {
				n++
			}
		}
		return n
	}
	for host := range byte(4) {
		if n := count(host); n != 16 {
			t.Errorf("an address has %d, want 16", n)
		}
	}
	if n := count(4); n != 0 {
		t.Errorf("%d more than all", n)
	}
	for p, n := range s.nodes {
		for range n.streams {
			s.changeStream(p, 1, 1)
		}
	}
	if len(s.nodes) != 0 || len(s.from) != 0 || s.unproven != 0 {
		t.Errorf("held: %v, %v, %d", s.nodes, s.from, s.unproven)
	}
}
