package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

// probe is the watchdog's question: do the parts still work without which a
// running process is no daemon? It returns nil if each has answered before ctx
// ended. What merely fails, as a write to a full disk does, is no reason for a
// restart and reported elsewhere.
func (d *Daemon) probe(ctx context.Context) error {
	err := d.askParts(ctx)
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		d.log.Error("the daemon did not answer its own request", systemd.MsgWatchdogProbeFailed.Attr(), "error", err)
	}
	return err
}

func (d *Daemon) askParts(ctx context.Context) error {
	// The status is read from every part, so that it waits for each one's locks.
	for _, typ := range []string{api.TypeHello, api.VerbDaemonStatus} {
		if err := d.askSocket(ctx, typ); err != nil {
			return fmt.Errorf("ask for %s on the control socket: %w", typ, err)
		}
	}
	select {
	case d.beat <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for the main loop, which reloads and stops: %w", ctx.Err())
	}
	if n := d.node.Load(); n != nil {
		if err := n.store.Turn(ctx); err != nil && ctx.Err() != nil {
			return fmt.Errorf("wait for the store's writer: %w", err)
		}
	}
	return nil
}

// askSocket makes a whole request, as a client does.
func (d *Daemon) askSocket(ctx context.Context, typ string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", d.place.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	answer, err := ask(conn, typ)
	switch {
	case err == nil:
		return answer.Err()
	case ctx.Err() != nil:
		return ctx.Err() // why the connection was closed
	}
	return err
}

func ask(conn net.Conn, typ string) (answer api.Response, err error) {
	if _, err := conn.Write(api.AppendRequest(nil, &api.Request{ID: "watchdog", Type: typ})); err != nil {
		return answer, err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return answer, err
	}
	return answer, json.Unmarshal(line, &answer)
}
