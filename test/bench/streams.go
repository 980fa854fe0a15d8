package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// bulkSize is what one measurement of throughput carries.
const bulkSize = 256 << 20

// benchStreams: bytes through both daemons beside raw libp2p on the same
// transport, source and sink in memory, in both directions; and the round trip
// on an open stream.
func benchStreams(ctx context.Context, b *bench) error {
	for _, t := range []struct{ name, listen, config string }{
		{"quic", quicLoopback, "tcp = false"},
		{"tcp", tcpLoopback, "quic = false"},
	} {
		if err := benchTransport(ctx, b, t.name, t.listen, t.config); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

func benchTransport(ctx context.Context, b *bench, name, listen, config string) (err error) {
	x, y, err := process.Pair(ctx, b.bin, process.Options{Config: []string{config}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close(), y.Close()) }()
	programs, err := os.MkdirTemp("", "fastn-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(programs)) }()
	served, err := servePrograms(programs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, served()) }()
	raw, err := startRaw(ctx, listen, programs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.stop()) }()
	serving, err := serveBulk(ctx, y)
	if err != nil {
		return err
	}
	defer serving()
	open := func(protocol string) func() (stream, error) {
		return func() (stream, error) {
			return x.Client.Stream(ctx, client.Request{Target: "peer", Protocol: protocol})
		}
	}
	rawOpen := func(protocol string) func() (stream, error) {
		return func() (stream, error) { return raw.open(ctx, protocol) }
	}
	carried := func(protocol string) func() (stream, error) {
		return func() (stream, error) { return relayed(ctx, raw, protocol) }
	}
	const rounds = 7
	for _, way := range []struct {
		name, mine, raw string
		f               func(stream) error
	}{{"out", "sink", rawSink, push}, {"in", "source", rawSource, pull}} {
		m, err := interleaved(rounds, rate(open(way.mine), way.f), rate(rawOpen(way.raw), way.f), rate(carried(rawCarry+way.mine), way.f))
		if err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		what := "stream " + way.name + ", " + name
		b.add(atLeast(what, m[0], "MiB/s", m[1], "raw libp2p", 0.7), beside(what, m[0], "MiB/s", m[2], onlyCarry))
	}
	m, err := interleaved(rounds, trips(open(api.ProtocolEcho)), trips(rawOpen(rawEcho)), trips(carried(rawEcho)))
	if err != nil {
		return err
	}
	what := "round trip on an open stream, " + name
	b.add(atMost(what, m[0], "µs", m[1], "raw libp2p", 2), beside(what, m[0], "µs", m[2], onlyCarry))
	return nil
}

// stream is what both sides of the comparison have.
type stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

func (r *rawPair) open(ctx context.Context, name string) (stream, error) {
	return r.host.NewStream(ctx, r.to, protocol.ID(name))
}

// push sends bulkSize bytes and waits until the other side has counted them.
func push(s stream) error {
	if _, err := io.CopyBuffer(struct{ io.Writer }{s}, io.LimitReader(zeros{}, bulkSize), make([]byte, 64<<10)); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	line, err := bufio.NewReader(s).ReadString('\n')
	if err != nil || line != strconv.Itoa(bulkSize)+"\n" {
		return fmt.Errorf("the other side counted %q: %w", line, err)
	}
	return nil
}

// pull asks for bulkSize bytes.
func pull(s stream) error {
	if _, err := fmt.Fprintln(s, bulkSize); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, make([]byte, 64<<10))
	if err != nil || n != bulkSize {
		return fmt.Errorf("%d bytes came: %w", n, err)
	}
	return nil
}

// rate measures one transfer, in MiB/s.
func rate(open func() (stream, error), f func(stream) error) func() ([]float64, error) {
	return func() ([]float64, error) {
		s, err := open()
		if err != nil {
			return nil, err
		}
		start := time.Now()
		if err := f(s); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		took := time.Since(start)
		return []float64{bulkSize / (1 << 20) / took.Seconds()}, s.Close()
	}
}

// trips measures round trips of a few bytes on one open stream.
func trips(open func() (stream, error)) func() ([]float64, error) {
	return func() ([]float64, error) {
		s, err := open()
		if err != nil {
			return nil, err
		}
		buf := make([]byte, 16)
		out, err := micros(1000, func() error {
			if _, err := s.Write(buf); err != nil {
				return err
			}
			_, err := io.ReadFull(s, buf)
			return err
		})
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		if err := s.CloseWrite(); err != nil {
			return nil, err
		}
		_, err = io.Copy(io.Discard, s)
		return out, errors.Join(err, s.Close())
	}
}

// listen serves streams of a protocol until the returned function is called.
func listen(ctx context.Context, c *client.Client, protocol string, serve func(stream) error) (stop func(), err error) {
	l, err := c.Listen(ctx, client.ListenOptions{Protocol: protocol, Kinds: []string{"stream"}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.Serve(ctx, func(ctx context.Context, i *client.Incoming) {
			s, err := i.Accept(ctx)
			if err != nil {
				return
			}
			if err := serve(s); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", protocol, err)
			}
			_ = s.Close()
		})
	}()
	return func() { cancel(); _ = l.Close(); <-done }, nil
}

// bulk are the programs that take and give bytes.
var bulk = map[string]func(stream) error{"sink": sink, "source": source}

// serveBulk serves "sink" and "source" at y and grants them to its contacts.
func serveBulk(ctx context.Context, y *process.Daemon) (stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, f := range stops {
			f()
		}
	}
	for name, serve := range bulk {
		if err := y.Client.Verb(ctx, api.VerbGrantAdd, api.GrantArgs{Who: api.WhoContacts, Protocol: name}, nil); err != nil {
			return stop, err
		}
		end, err := listen(ctx, y.Client, name, serve)
		if err != nil {
			return stop, err
		}
		stops = append(stops, end)
	}
	return stop, nil
}

func sink(s stream) error {
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, make([]byte, 64<<10))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(s, n); err != nil {
		return err
	}
	return s.CloseWrite()
}

func source(s stream) error {
	var n int64
	if _, err := fmt.Fscanln(bufio.NewReader(s), &n); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{s}, io.LimitReader(zeros{}, n), make([]byte, 64<<10)); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	// To close before the other side's end was read is to abort.
	_, err := io.Copy(io.Discard, s)
	return err
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}
