package p2p_test

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
)

// rawHost is stock libp2p: see p2ptest.RawHost.
func rawHost(t testing.TB, listen string) host.Host {
	t.Helper()
	h, done, err := p2ptest.RawHost(p2ptest.Key(t), listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = done() })
	return h
}

// addrInfo is where one of our hosts is.
func addrInfo(h *p2p.Host) peer.AddrInfo {
	info := peer.AddrInfo{ID: h.Node().PeerID()}
	for _, s := range h.Addrs() {
		m, _ := peer.SplitAddr(ma.StringCast(s))
		info.Addrs = append(info.Addrs, m)
	}
	return info
}

// rawConnect connects a raw host to one of ours.
func rawConnect(t testing.TB, from host.Host, to *p2p.Host) {
	t.Helper()
	if err := from.Connect(t.Context(), addrInfo(to)); err != nil {
		t.Fatal(err)
	}
}

// rawID is the id of a raw host.
func rawID(t testing.TB, h host.Host) identity.ID {
	t.Helper()
	id, err := identity.FromPeerID(h.ID())
	if err != nil {
		t.Fatal(err)
	}
	return id
}
