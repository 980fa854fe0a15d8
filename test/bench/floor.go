package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
)

// relayServer is a process between a client and a raw server, as a daemon is, that
// does nothing but carry bytes: each connection to the Unix socket is one stream
// to the server. It serves until its standard input ends.
func relayServer(socket, server, name string) error {
	info, err := peer.AddrInfoFromString(server)
	if err != nil {
		return err
	}
	key, err := identity.GenerateKey()
	if err != nil {
		return err
	}
	h, done, err := p2ptest.RawHost(key, quicLoopback)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := h.Connect(ctx, *info); err != nil {
		return errors.Join(err, done())
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		return errors.Join(err, done())
	}
	fmt.Println(socket)
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return // the process ends
			}
			s, err := h.NewStream(ctx, info.ID, protocol.ID(name))
			if err != nil {
				_ = c.Close()
				continue
			}
			go carry(c, s)
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, l.Close(), done())
}

// echoServer is a process that sends back what comes over the Unix socket. It serves
// until its standard input ends.
func echoServer(socket string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		return err
	}
	fmt.Println(socket)
	go acceptEach(l, func(c *net.UnixConn) { copyEnd(c, c) })
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, l.Close())
}

// syncServer is echoServer, for one connection, that syncs a page to the disk before it
// sends a line back.
func syncServer(socket string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		return err
	}
	fmt.Println(socket)
	c, err := l.AcceptUnix()
	if err == nil {
		err = syncLines(c)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	_, endErr := io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, endErr, l.Close())
}

func syncLines(c *net.UnixConn) error {
	defer c.Close()
	disk, err := newDisk()
	if err != nil {
		return err
	}
	defer disk.Close()
	line := make([]byte, len(aLine))
	for {
		if _, err := io.ReadFull(c, line); err != nil {
			return err
		}
		if err := disk.sync(); err != nil {
			return err
		}
		if _, err := c.Write(line); err != nil {
			return err
		}
	}
}

// acceptEach serves each connection beside the others until l is closed.
func acceptEach(l *net.UnixListener, serve func(*net.UnixConn)) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return // it is closed
		}
		go func() {
			serve(c)
			_ = c.Close()
		}()
	}
}

// carry copies both ways until both have ended.
func carry(c *net.UnixConn, s network.Stream) {
	var back sync.WaitGroup
	back.Go(func() { copyEnd(c, s) })
	copyEnd(s, c)
	back.Wait()
	_ = c.Close()
	_ = s.Close()
}

// copyEnd copies all there is and its end. What breaks is seen by who measures.
func copyEnd(to interface {
	io.Writer
	CloseWrite() error
}, from io.Reader) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 64<<10))
	_ = to.CloseWrite()
}

// servePrograms serves what serveBulk does, on sockets in dir.
func servePrograms(dir string) (stop func() error, err error) {
	var all []io.Closer
	stop = func() (err error) {
		for _, l := range all {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	for name, serve := range bulk {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name)})
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		all = append(all, l)
		go acceptEach(l, func(c *net.UnixConn) {
			if err := serve(c); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", name, err)
			}
		})
	}
	return stop, nil
}

// onlyCarry names the baseline of relayed.
const onlyCarry = "two processes that only carry bytes"

// relay is a connection to another process of this program, such as one through which
// a protocol of a raw server is reached.
type relay struct {
	*net.UnixConn
	stop func() error
}

func (r *relay) Close() error { return errors.Join(r.UnixConn.Close(), r.stop()) }

func relayed(ctx context.Context, raw *rawPair, protocol string) (*relay, error) {
	return through(ctx, "relay", raw.address, protocol)
}

// echoed is a connection to a process that sends back what comes.
func echoed(ctx context.Context) (*relay, error) { return through(ctx, "echo") }

// synced is echoed, with a sync of the disk in between.
func synced(ctx context.Context) (*relay, error) { return through(ctx, "sync") }

// through is a connection to such a server of this program.
func through(ctx context.Context, kind string, args ...string) (*relay, error) {
	dir, err := os.MkdirTemp("", "fastn-bench")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "socket")
	_, end, err := startSelf(ctx, append([]string{kind, socket}, args...)...)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop := func() error { return errors.Join(end(), os.RemoveAll(dir)) }
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket})
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return &relay{conn, stop}, nil
}

// exchange sends message and reads it back.
func exchange(s io.ReadWriter, message []byte) error {
	if _, err := s.Write(message); err != nil {
		return err
	}
	_, err := io.ReadFull(s, make([]byte, len(message)))
	return err
}

// startSelf runs this program with args, as a server that tells in its first line
// where it is and ends with its standard input.
func startSelf(ctx context.Context, args ...string) (line string, stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() error { return errors.Join(in.Close(), cmd.Wait()) }
	line, err = firstLine(out)
	if err != nil {
		return "", nil, errors.Join(err, stop())
	}
	return line, stop, nil
}
