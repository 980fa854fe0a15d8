package p2ptest

import (
	"errors"
	"net"

	"github.com/libp2p/go-libp2p/core/host"
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
)

// RawHost is stock libp2p with its own defaults, listening on one multiaddr: the
// baseline of benchmarks, and a peer that may say anything. done closes it.
func RawHost(key identity.Key, listen string) (h host.Host, done func() error, err error) {
	addr, err := ma.NewMultiaddr(listen)
	if err != nil {
		return nil, nil, err
	}
	return rawHost(key, addr, nil)
}

// RawHostFrom is a RawHost that listens nowhere and dials from one address of
// this machine: 127.0.0.2.
func RawHostFrom(key identity.Key, source net.IP) (h host.Host, done func() error, err error) {
	return rawHost(key, nil, source)
}

func rawHost(key identity.Key, listen ma.Multiaddr, source net.IP) (h host.Host, done func() error, err error) {
	id := key.ID().PeerID()
	ps, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(ps.AddPrivKey(id, key.PrivKey()), ps.AddPubKey(id, key.PrivKey().GetPublic())); err != nil {
		return nil, nil, err
	}
	bus := eventbus.NewBus()
	sw, err := swarm.NewSwarm(id, ps, bus)
	if err != nil {
		return nil, nil, err
	}
	cm, err := rawTransports(sw, key, source)
	if err != nil {
		return nil, nil, errors.Join(err, sw.Close())
	}
	bh, err := basichost.NewHost(sw, &basichost.HostOpts{EventBus: bus, EnablePing: true})
	if err != nil {
		return nil, nil, errors.Join(err, sw.Close())
	}
	done = func() error { return errors.Join(bh.Close(), cm.Close()) }
	if listen != nil {
		if err := sw.AddListenAddr(listen); err != nil {
			return nil, nil, errors.Join(err, done())
		}
	}
	bh.Start()
	return bh, done, nil
}

func rawTransports(sw *swarm.Swarm, key identity.Key, source net.IP) (*quicreuse.ConnManager, error) {
	var udp []quicreuse.Option
	var dialTCP []tcp.Option
	if source != nil {
		udp = append(udp, quicreuse.OverrideListenUDP(func(network string, _ *net.UDPAddr) (net.PacketConn, error) {
			return net.ListenUDP(network, &net.UDPAddr{IP: source})
		}))
		dialTCP = append(dialTCP, tcp.WithDialerForAddr(func(ma.Multiaddr) (tcp.ContextDialer, error) {
			return &net.Dialer{LocalAddr: &net.TCPAddr{IP: source}}, nil
		}))
	}
	cm, err := quicreuse.NewConnManager(quic.StatelessResetKey{}, quic.TokenGeneratorKey{}, udp...)
	if err != nil {
		return nil, err
	}
	q, err := libquic.NewTransport(key.PrivKey(), cm, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	security, err := libtls.New(libtls.ID, key.PrivKey(), muxers)
	if err != nil {
		return nil, err
	}
	up, err := upgrader.New([]sec.SecureTransport{security}, muxers, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	t, err := tcp.NewTCPTransport(up, nil, nil, dialTCP...)
	if err != nil {
		return nil, err
	}
	return cm, errors.Join(sw.AddTransport(q), sw.AddTransport(t))
}
