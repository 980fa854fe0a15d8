package p2p

import (
	"context"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
)

// quicTransport is libp2p's QUIC transport, with streams that can be reset while
// somebody writes to them; see quicStream.
type quicTransport struct{ transport.Transport }

func (t quicTransport) Dial(ctx context.Context, to ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	c, err := t.Transport.Dial(ctx, to, p)
	if err != nil {
		return nil, err
	}
	return quicConn{c}, nil
}

func (t quicTransport) Listen(addr ma.Multiaddr) (transport.Listener, error) {
	l, err := t.Transport.Listen(addr)
	if err != nil {
		return nil, err
	}
	return quicListener{l}, nil
}

// ListenOrder is libp2p's, which asks for it beside the interface.
func (t quicTransport) ListenOrder() int {
	if l, ok := t.Transport.(interface{ ListenOrder() int }); ok {
		return l.ListenOrder()
	}
	return 0
}

type quicListener struct{ transport.Listener }

func (l quicListener) Accept() (transport.CapableConn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return quicConn{c}, nil
}

type quicConn struct{ transport.CapableConn }

func (c quicConn) OpenStream(ctx context.Context) (network.MuxedStream, error) {
	return wholeWrites(c.CapableConn.OpenStream(ctx))
}

func (c quicConn) AcceptStream() (network.MuxedStream, error) {
	return wholeWrites(c.CapableConn.AcceptStream())
}

// limitedWriter is a stream of quic-go.
type limitedWriter interface {
	WriteWithLimit(p []byte, limit func(most int) int) (int, error)
}

func wholeWrites(s network.MuxedStream, err error) (network.MuxedStream, error) {
	if err != nil {
		return nil, err
	}
	if w, ok := s.(limitedWriter); ok {
		return &quicStream{MuxedStream: s, w: w}, nil
	}
	return s, nil
}

// quicStream is a stream of quic-go that is always given back once it was reset.
//
// quic-go keeps up to a packet of what is written for the next packet. Where a Write
// has no room in it, so that it waits, and the stream is reset meanwhile, what was kept
// is dropped and what the Write has takes its place if it fits into a packet. It is
// never sent, for which the stream counts as unfinished: it is kept, with all data that
// came for it and was not read, until the connection ends (send_stream.go: write and
// isNewlyCompleted; seen in v0.64.1). A Write with a limit keeps nothing, so that is
// what any is that may find no room.
type quicStream struct {
	network.MuxedStream
	w limitedWriter

	mu   sync.Mutex
	kept int // bytes that may be kept at most
}

// mostKept is less than quic-go keeps of a stream.
const mostKept = 1200

func (s *quicStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept+len(p) <= mostKept {
		n, err := s.MuxedStream.Write(p)
		s.kept += n
		return n, err
	}
	n, err := s.w.WriteWithLimit(p, noLimit)
	if err == nil {
		s.kept = 0
		return n, nil
	}
	if _, said := s.MuxedStream.Write(nil); said != nil {
		err = said // the same, as libp2p says it
	}
	return n, err
}

func noLimit(most int) int { return most }
