package p2p_test

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libtls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
)

// rawHost is stock libp2p with its own defaults: the baseline of benchmarks,
// and a peer that may say anything.
func rawHost(t testing.TB, listen string) host.Host {
	t.Helper()
	key := p2ptest.Key(t)
	id := key.ID().PeerID()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ps, err := pstoremem.NewPeerstore()
	must(err)
	must(ps.AddPrivKey(id, key.PrivKey()))
	must(ps.AddPubKey(id, key.PrivKey().GetPublic()))
	bus := eventbus.NewBus()
	sw, err := swarm.NewSwarm(id, ps, bus)
	must(err)
	cm, err := quicreuse.NewConnManager(quic.StatelessResetKey{}, quic.TokenGeneratorKey{})
	must(err)
	q, err := libquic.NewTransport(key.PrivKey(), cm, nil, nil, nil)
	must(err)
	must(sw.AddTransport(q))
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	security, err := libtls.New(libtls.ID, key.PrivKey(), muxers)
	must(err)
	up, err := upgrader.New([]sec.SecureTransport{security}, muxers, nil, nil, nil)
	must(err)
	tr, err := tcp.NewTCPTransport(up, nil, nil)
	must(err)
	must(sw.AddTransport(tr))
	h, err := basichost.NewHost(sw, &basichost.HostOpts{EventBus: bus, EnablePing: true})
	must(err)
	must(sw.AddListenAddr(ma.StringCast(listen)))
	h.Start()
	t.Cleanup(func() { _, _ = h.Close(), cm.Close() })
	return h
}

// rawConnect connects a raw host to one of ours.
func rawConnect(t testing.TB, from host.Host, to *p2p.Host) {
	t.Helper()
	info := peer.AddrInfo{ID: to.Node().PeerID()}
	for _, s := range to.Addrs() {
		m, _ := peer.SplitAddr(ma.StringCast(s))
		info.Addrs = append(info.Addrs, m)
	}
	if err := from.Connect(t.Context(), info); err != nil {
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
