package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
)

// Protocols of the baseline: what is sent comes back, or is counted, or comes.
const (
	rawEcho   = "/bench/echo"
	rawSink   = "/bench/sink"
	rawSource = "/bench/source"
	// rawCarry and the name of a Unix socket: each stream is a connection to it.
	rawCarry = "/bench/carry/"
)

const (
	quicLoopback = "/ip4/127.0.0.1/udp/0/quic-v1"
	tcpLoopback  = "/ip4/127.0.0.1/tcp/0"
)

// rawServer is the other process of the baseline: it serves until its standard
// input ends. In programs are the sockets of the programs that it carries for.
func rawServer(listen, programs string) error {
	key, err := identity.GenerateKey()
	if err != nil {
		return err
	}
	h, done, err := p2ptest.RawHost(key, listen)
	if err != nil {
		return err
	}
	h.SetStreamHandler(rawEcho, func(s network.Stream) { copyStream(s, s, s) })
	h.SetStreamHandler(rawSink, func(s network.Stream) {
		n, err := io.Copy(io.Discard, s)
		if err == nil {
			_, _ = fmt.Fprintln(s, n)
		}
		_ = s.Close()
	})
	h.SetStreamHandler(rawSource, func(s network.Stream) {
		var n int64
		if _, err := fmt.Fscanln(bufio.NewReader(s), &n); err == nil {
			_, _ = io.CopyN(s, zeros{}, n)
		}
		_ = s.Close()
	})
	for _, name := range []string{"sink", "source"} {
		h.SetStreamHandler(protocol.ID(rawCarry+name), func(s network.Stream) {
			c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(programs, name)})
			if err != nil {
				_ = s.Reset()
				return
			}
			carry(c, s)
		})
	}
	fmt.Printf("%s/p2p/%s\n", h.Addrs()[0], h.ID())
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, done())
}

func copyStream(w io.Writer, r io.Reader, s network.Stream) {
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 64<<10)); err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// zeros is an endless source in memory.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// rawPair is a connected raw host here with the server process.
type rawPair struct {
	host    host.Host
	to      peer.ID
	address string
	stop    func() error
}

func startRaw(ctx context.Context, listen, programs string) (*rawPair, error) {
	line, end, err := startSelf(ctx, "raw", listen, programs)
	if err != nil {
		return nil, err
	}
	info, err := peer.AddrInfoFromString(line)
	if err != nil {
		return nil, errors.Join(err, end())
	}
	key, err := identity.GenerateKey()
	if err != nil {
		return nil, errors.Join(err, end())
	}
	h, done, err := p2ptest.RawHost(key, listen)
	if err != nil {
		return nil, errors.Join(err, end())
	}
	if err := h.Connect(ctx, *info); err != nil {
		return nil, errors.Join(err, done(), end())
	}
	return &rawPair{host: h, to: info.ID, address: line, stop: func() error { return errors.Join(done(), end()) }}, nil
}

func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(r).ReadString('\n')
	return strings.TrimSpace(line), err
}

// roundTrip opens a stream, sends message, reads it back and closes.
func (r *rawPair) roundTrip(ctx context.Context, message []byte) error {
	s, err := r.host.NewStream(ctx, r.to, rawEcho)
	if err != nil {
		return err
	}
	if _, err := s.Write(message); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(s)
	if err != nil || len(got) != len(message) {
		return fmt.Errorf("%d bytes came back: %w", len(got), err)
	}
	return s.Close()
}
