package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

// probe is the watchdog's question: do the parts still work without which a
// running process is no daemon? It returns nil if each has answered before ctx
// ended. What merely fails, as a write to a full disk does, is no reason for a
// restart and reported elsewhere.
func (d *Daemon) probe(ctx context.Context) error {
	err := d.askWithin(ctx)
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		d.log.Error("the daemon did not answer its own request", systemd.MsgWatchdogProbeFailed.Attr(), "error", err)
	}
	return err
}

// mendingPatience is how long the repair of a database may go without a sign that
// it gets on. To end a daemon that repairs only has the next one begin anew.
const mendingPatience = 10 * time.Minute

// askWithin leaves some of ctx's time, to say whether it matters that a part did
// not answer.
func (d *Daemon) askWithin(ctx context.Context) error {
	within := ctx
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, time.Until(end)*3/4)
		defer cancel()
	}
	if err := d.askSocket(within, api.TypeHello); err != nil {
		return fmt.Errorf("ask for %s on the control socket: %w", api.TypeHello, err)
	}
	err := d.askParts(within)
	if since, ok := d.repairing(); err != nil && ok {
		d.log.Warn("a part does not answer while a database is being repaired", "since", since.UTC().Format(time.RFC3339), "error", err)
		return nil
	}
	if err != nil && d.diskStalls(ctx, err) {
		return nil
	}
	return err
}

// repairing tells since when a database has been being opened, or repaired, if it
// gets on.
func (d *Daemon) repairing() (since time.Time, ok bool) {
	since, last, ok := d.opening.Working()
	return since, ok && time.Since(last) < mendingPatience
}

// askParts asks all that a repair may hold up.
func (d *Daemon) askParts(ctx context.Context) error {
	// The status is read from every part, so that it waits for each one's locks.
	if err := d.askSocket(ctx, api.VerbDaemonStatus); err != nil {
		return fmt.Errorf("ask for %s on the control socket: %w", api.VerbDaemonStatus, err)
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

// leaveWithin is how long a daemon that stops waits for the answer to its own
// request.
const leaveWithin = 3 * time.Second

// askSocket makes a whole request, as a client does. If ctx is cancelled it waits a
// little for the answer, so that no request is left behind in the socket.
func (d *Daemon) askSocket(ctx context.Context, typ string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// A Unix socket takes it at once, or refuses.
	conn, err := net.Dial("unix", d.place.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			_ = conn.SetDeadline(time.Now().Add(leaveWithin)) // or it is closed
			return
		}
		_ = conn.Close()
	})
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

const (
	// extendEvery is how often systemd is asked for more time to start, which is
	// extendBy each time.
	extendEvery = 15 * time.Second
	extendBy    = time.Minute
)

// extended runs a start, and asks for more time while it repairs a database.
func (d *Daemon) extended(start func()) {
	var wg sync.WaitGroup
	defer wg.Wait()
	done := make(chan struct{})
	defer close(done)
	wg.Go(func() {
		tick := time.NewTicker(extendEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			d.extend()
		}
	})
	start()
}

func (d *Daemon) extend() {
	since, ok := d.repairing()
	if !ok {
		return
	}
	if err := d.notify.Extend(extendBy, "a database is being checked and repaired since "+since.Format(time.TimeOnly)); err != nil {
		d.log.Error("cannot ask systemd for more time", "error", err)
	}
}
