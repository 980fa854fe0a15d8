package p2p

import (
	"net/netip"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
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

// What is unproven is bounded by node, by address and in all. The oldest gives way
// to what is new: of an address that has its share, or of the one that has most.
func TestUnprovenIsBounded(t *testing.T) {
	var s strangers
	s.init(Options{MemoryLimit: 16 * 64, WindowInitial: 1}) // 64 in all
	var open, lost []*strangerStream
	take := func(host, node byte) bool {
		one := &strangerStream{StreamManagementScope: &network.NullScope{}, all: &s, peer: peer.ID([]byte{host, node}),
			from: Network(netip.AddrFrom4([4]byte{2, 0, 0, host}))}
		loser, ok := s.takeStream(one)
		if ok {
			open = append(open, one)
		}
		if loser != nil {
			lost = append(lost, loser)
		}
		return ok
	}
	has := func(host byte) int {
		l := s.from[Network(netip.AddrFrom4([4]byte{2, 0, 0, host}))]
		if l == nil {
			return 0
		}
		return l.Len()
	}
	for host := range byte(4) {
		for node := range byte(10) {
			for range strangerUnproven {
				if !take(host, node) {
					t.Fatal("a node has less than its share")
				}
			}
			if take(host, node) {
				t.Error("a node has more than its share")
			}
		}
		if n := has(host); n != 16 {
			t.Errorf("an address has %d, want 16", n)
		}
	}
	if len(lost) != 4*(80-16) || lost[0] != open[0] {
		t.Errorf("%d gave way", len(lost))
	}
	lost = nil
	for i := range 8 {
		if !take(4, 0) || has(4) != i+1 || s.unproven != 64 {
			t.Fatalf("one from elsewhere has no place: %d, %d in all", has(4), s.unproven)
		}
	}
	for host := range byte(4) {
		if n := has(host); n != 14 {
			t.Errorf("address %d has %d left, want 14", host, n)
		}
	}
	for i := range 4 {
		if oldest := open[80*i+64]; lost[i] != oldest || lost[i+4] != open[80*i+65] {
			t.Errorf("others gave way than the oldest of each address")
		}
	}
	for i, one := range open {
		if i%2 == 0 {
			one.prove()
		}
		one.Done()
		one.Done()
	}
	if len(s.nodes) != 0 || len(s.from) != 0 || s.unproven != 0 {
		t.Errorf("held: %v, %v, %d", s.nodes, s.from, s.unproven)
	}
}
