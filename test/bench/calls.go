package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// wideBudgets lets one user do what many would.
var wideBudgets = []string{"[budgets]", "per_uid_connections = 16384", "per_uid_requests = 100000", "per_uid_streams = 16384",
	"per_peer_requests = 100000", "per_peer_streams = 16384", "node_connections = 16384"}

var hello = []byte(`{"message":"hello"}`)

func echo(ctx context.Context, c *client.Client) error {
	_, err := c.Call(ctx, client.Request{Target: "peer", Protocol: api.ProtocolEcho, Data: hello})
	return err
}

// benchCalls: a warm call through both daemons beside a raw libp2p stream round
// trip between two processes.
func benchCalls(ctx context.Context, b *bench) (err error) {
	x, raw, end, err := pairBesideRaw(ctx, b, wideBudgets)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	relay, err := relayed(ctx, raw, rawEcho)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, relay.Close()) }()
	return warmCalls(ctx, b, x.Client, raw, relay)
}

// pairBesideRaw starts two daemons, contacts of each other, and two processes that
// use libp2p only; end stops all four. x is the daemon whose contact is "peer".
func pairBesideRaw(ctx context.Context, b *bench, config []string) (x *process.Daemon, raw *rawPair, end func() error, err error) {
	x, y, err := process.Pair(ctx, b.bin, process.Options{Config: config})
	if err != nil {
		return nil, nil, nil, err
	}
	if raw, err = startRaw(ctx, quicLoopback, ""); err != nil {
		return nil, nil, nil, errors.Join(err, x.Close(), y.Close())
	}
	return x, raw, func() error { return errors.Join(raw.stop(), x.Close(), y.Close()) }, nil
}

// warmCalls: beside the budget's baseline it shows what the same way costs when
// bytes are only carried: from a client through a process to another and back.
func warmCalls(ctx context.Context, b *bench, c *client.Client, raw *rawPair, relay io.ReadWriter) error {
	call := func() error { return echo(ctx, c) }
	stream := func() error { return raw.roundTrip(ctx, hello) }
	bytes := func() error { return exchange(relay, hello) }
	if _, err := micros(300, func() error { return errors.Join(call(), stream(), bytes()) }); err != nil {
		return err
	}
	const runs = 500
	m, err := interleaved(25, times(runs, call), times(runs, stream), times(runs, bytes))
	if err != nil {
		return err
	}
	b.add(atMost("warm call, both daemons, p50", m[0], "µs", m[1], "raw libp2p stream round trip", 1.5),
		beside("warm call, both daemons, p50", m[0], "µs", m[2], onlyCarry))
	return nil
}

// benchRates: calls a second with many clients.
func benchRates(ctx context.Context, b *bench) (err error) {
	x, y, err := process.Pair(ctx, b.bin, process.Options{Config: wideBudgets})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close(), y.Close()) }()
	for _, clients := range []int{1, 64, 1000} {
		before, err := cpuOf(x, y)
		if err != nil {
			return err
		}
		calls, took, err := callsDone(ctx, x.Socket, clients)
		if err != nil {
			return fmt.Errorf("%d clients: %w", clients, err)
		}
		after, err := cpuOf(x, y)
		if err != nil {
			return err
		}
		of := fmt.Sprintf(", %d clients", clients)
		b.add(shown("calls a second"+of, calls/took.Seconds(), "/s"),
			shown("processor of both daemons for a call"+of, float64((after-before).Nanoseconds())/1e3/calls, "µs"))
	}
	return nil
}

// cpuOf is what daemons have used of the processors. Unlike a rate it hardly
// depends on what else the machine does.
func cpuOf(daemons ...*process.Daemon) (sum time.Duration, err error) {
	for _, d := range daemons {
		used, err := d.CPU()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// callsDone is how many calls clients with a connection each get done, and in
// which time.
func callsDone(ctx context.Context, socket string, clients int) (n float64, took time.Duration, err error) {
	const long = 3 * time.Second
	all := make([]*client.Client, clients)
	for i := range all {
		c, err := client.Dial(ctx, socket, client.Options{})
		if err != nil {
			return 0, 0, err
		}
		defer c.Close()
		all[i] = c
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs error
	total := 0
	start := time.Now()
	for _, c := range all {
		wg.Go(func() {
			n := 0
			var err error
			for err == nil && time.Since(start) < long {
				if err = echo(ctx, c); err == nil {
					n++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total += n
			errs = errors.Join(errs, err)
		})
	}
	wg.Wait()
	return float64(total), time.Since(start), errs
}
