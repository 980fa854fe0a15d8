package main

import (
	"context"
	"errors"
	"fmt"
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
// trip between two processes, and calls a second with many clients.
func benchCalls(ctx context.Context, b *bench) (err error) {
	x, y, err := process.Pair(ctx, b.bin, process.Options{Config: wideBudgets})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close(), y.Close()) }()
	raw, err := startRaw(ctx, quicLoopback)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.stop()) }()
	const warm = 300
	if _, err := micros(warm, func() error { return errors.Join(echo(ctx, x.Client), raw.roundTrip(ctx, hello)) }); err != nil {
		return err
	}
	call, base, err := inTurn(9,
		func() ([]float64, error) { return micros(1000, func() error { return echo(ctx, x.Client) }) },
		func() ([]float64, error) { return micros(1000, func() error { return raw.roundTrip(ctx, hello) }) })
	if err != nil {
		return err
	}
	b.add(atMost("warm call, both daemons, p50", call, "µs", base, "raw libp2p stream round trip", 1.5))
	for _, clients := range []int{1, 64, 1000} {
		rate, err := callRate(ctx, x.Socket, clients)
		if err != nil {
			return fmt.Errorf("%d clients: %w", clients, err)
		}
		b.add(shown(fmt.Sprintf("calls a second, %d clients", clients), rate, "/s"))
	}
	return nil
}

// callRate is how many calls clients with a connection each get done in a second.
func callRate(ctx context.Context, socket string, clients int) (float64, error) {
	const long = 3 * time.Second
	all := make([]*client.Client, clients)
	for i := range all {
		c, err := client.Dial(ctx, socket, client.Options{})
		if err != nil {
			return 0, err
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
	return float64(total) / time.Since(start).Seconds(), errs
}
