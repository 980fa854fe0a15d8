package client

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// Subscription tells events, on a connection of its own. One goroutine uses it.
type Subscription struct {
	c    *Client
	args api.SubscribeArgs // its cursor is that of the last event told
	conn *net.UnixConn     // nil while not connected
	in   *bufio.Reader
}

// Subscribe asks for events from now on, or from behind args.Cursor.
func (c *Client) Subscribe(ctx context.Context, args api.SubscribeArgs) (*Subscription, error) {
	s := &Subscription{c: c, args: args}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// connect subscribes behind the last event told, if any was.
func (s *Subscription) connect(ctx context.Context) error {
	data, err := api.Marshal(s.args)
	if err != nil {
		return api.AsError(err)
	}
	conn, err := s.c.dial(ctx)
	if err != nil {
		return err
	}
	answer, in, err := firstData(ctx, conn, &api.Request{Type: api.TypeSubscribe, From: s.c.o.From, Data: data}, api.StatusOK)
	if err != nil {
		conn.Close()
		return err
	}
	var start api.Subscribed
	if err := json.Unmarshal(answer, &start); err != nil {
		conn.Close()
		return api.Errorf(api.CodeInternal, "the daemon's answer cannot be read: %v", err)
	}
	s.conn, s.in = conn, in
	s.args.Cursor = &start.Cursor
	return nil
}

// Next waits for the next event. If the connection breaks it connects anew, for as
// long as ctx lasts, and goes on behind the last event: none is told twice, and
// if some are lost Gap says so.
func (s *Subscription) Next(ctx context.Context) (api.Event, error) {
	pause := 10 * time.Millisecond
	for {
		if s.conn == nil {
			err := s.connect(ctx)
			switch {
			case ctx.Err() != nil:
				return api.Event{}, contextError(ctx)
			case err == nil:
				pause = 10 * time.Millisecond
			case !passing(err):
				return api.Event{}, err
			default:
				pause = min(2*pause, 2*time.Second)
				if err := sleep(ctx, pause); err != nil {
					return api.Event{}, err
				}
				continue
			}
		}
		e, err := s.read(ctx)
		if err == nil {
			s.args.Cursor = &e.Cursor
			return e, nil
		}
		if ctx.Err() != nil {
			return api.Event{}, contextError(ctx)
		}
		s.Close()
	}
}

// passing tells errors that a daemon's restart explains.
func passing(err error) bool {
	code := api.CodeOf(err)
	return code == api.CodeUnavailable || code == api.CodeOutcomeUnknown
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return contextError(ctx)
	}
}

// read returns the next event on this connection. A ctx that ends in the middle of
// a line costs the connection: the line is told again on the next.
func (s *Subscription) read(ctx context.Context) (api.Event, error) {
	undo := interrupt(ctx, s.conn.SetReadDeadline)
	line, err := readLine(s.in)
	undo()
	if err != nil {
		s.Close()
		return api.Event{}, err
	}
	a, err := parseAnswer(line)
	if err != nil {
		return api.Event{}, err
	}
	if a.err != nil {
		return api.Event{}, a.err
	}
	var e api.Event
	err = json.Unmarshal(a.data, &e)
	return e, err
}

// Close ends the subscription; Next would begin it again behind the last event.
func (s *Subscription) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn, s.in = nil, nil
	return err
}
