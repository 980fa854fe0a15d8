package p2p

import (
	"bytes"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// FuzzAddrs: addresses that people and peers name. What is kept of a peer's is
// read again as an address of that peer.
func FuzzAddrs(f *testing.F) {
	key, err := identity.KeyFromSeed(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		f.Fatal(err)
	}
	node := key.ID()
	for _, s := range []string{"/ip4/2.0.0.1/udp/4100/quic-v1", "/ip6/fe80::1%eth0/tcp/1", "/ip6zone/x/ip6/fe80::1/tcp/1", "/dns4/example.org/tcp/4100",
		"/ip4/1.2.3.4/tcp/1/p2p/" + node.PeerID().String(), "/p2p/" + node.PeerID().String(), "/unix/a/b", "/p2p-circuit",
		"/ip4/2.0.0.1/tcp/1/p2p/" + node.PeerID().String() + "/p2p-circuit/p2p/" + node.PeerID().String(), "", "/"} {
		var raw []byte
		if m, err := ma.NewMultiaddr(s); err == nil {
			raw = m.Bytes()
		}
		f.Add(s, raw)
	}
	f.Fuzz(func(t *testing.T, text string, raw []byte) {
		var addrs []ma.Multiaddr
		if m, err := parseAddr(text, node); err == nil {
			addrs = append(addrs, m)
			if len(m) == 0 {
				t.Errorf("%q is taken without an address", text)
			}
		}
		if m, err := ma.NewMultiaddrBytes(raw); err == nil { // as Identify reads them
			addrs = append(addrs, m)
		}
		for _, m := range addrs {
			_, _, _ = pathOf(m), ipOf(m), rank(m)
			for _, s := range addrStrings([]ma.Multiaddr{m}, node.PeerID(), true) {
				if again, err := parseAddr(s, node); err != nil || again.String()+"/p2p/"+node.PeerID().String() != s {
					t.Errorf("%q, %x: kept as %q, which is read as %v, %v", text, raw, s, again, err)
				}
			}
		}
	})
}
