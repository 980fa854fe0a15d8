package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/process"
)

// benchIdle: memory and processor of a daemon that nobody uses, and what an idle
// client adds.
func benchIdle(ctx context.Context, b *bench) (err error) {
	d, err := process.Start(ctx, b.bin, process.Options{Config: wideBudgets})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	const watch = 10 * time.Second
	before, err := d.CPU()
	if err != nil {
		return err
	}
	if err := pause(ctx, watch); err != nil {
		return err
	}
	after, err := d.CPU()
	if err != nil {
		return err
	}
	empty, err := d.RSS()
	if err != nil {
		return err
	}
	b.add(under("idle memory", empty/1024, "MiB", 40), under("idle processor", 100*float64(after-before)/float64(watch), "%", 0.5))
	return idleClients(ctx, b, d, 10_000)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func idleClients(ctx context.Context, b *bench, d *process.Daemon, n int) error {
	before, err := d.RSS()
	if err != nil {
		return err
	}
	conns, err := greeted(ctx, d.Socket, n)
	defer func() { hangUp(conns) }()
	if err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	after, err := d.RSS()
	if err != nil {
		return err
	}
	b.add(under(fmt.Sprintf("memory of an idle client (%d)", n), (after-before)/float64(n), "KiB", 20))
	return nil
}

// greeted makes n connections that are known to be served. The caller closes those
// it returns, also with an error.
func greeted(ctx context.Context, socket string, n int) (conns []*lineConn, err error) {
	for range n {
		c, err := dialLine(ctx, socket)
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
		if err := c.ask(&api.Request{ID: "1", Type: api.TypeHello}); err != nil {
			return conns, fmt.Errorf("client %d: %w", len(conns), err)
		}
	}
	return conns, nil
}
