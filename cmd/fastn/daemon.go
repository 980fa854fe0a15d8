package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"

	"github.com/fastn-stack/fastnd/service/api"
)

// daemon is what the commands need of the daemon; clientDaemon does it.
type daemon interface {
	Hello(ctx context.Context) (api.Hello, error)
	Verb(ctx context.Context, verb string, args any, files ...*os.File) (json.RawMessage, error)
	Call(ctx context.Context, r api.Request) (json.RawMessage, error)
	Stream(ctx context.Context, r api.Request) (stream, error)
	// Listen waits with again for a daemon that is away.
	Listen(ctx context.Context, r api.Request, again bool, kinds ...string) (listener, error)
	// Send, WaitFinal and Follow outlive a restart of the daemon.
	Send(ctx context.Context, r api.Request) (api.SendResult, error)
	WaitFinal(ctx context.Context, id string) (api.OutboxMessage, error)
	Follow(ctx context.Context, args api.InboxListArgs, each func(api.InboxMessage) error) error
	// Subscribe calls each for every event until ctx ends or each fails.
	Subscribe(ctx context.Context, args api.SubscribeArgs, each func(api.Event) error) error
	Close() error
}

// stream is raw bytes both ways, each direction closed on its own.
type stream interface {
	io.Reader
	io.Writer
	CloseWrite() error
	Reset() error
	// Result waits for the end of the stream and tells how it was.
	Result(ctx context.Context) (api.StreamResult, error)
	// Close releases the stream, and aborts it if it has not ended.
	Close() error
}

// listener is told of calls, streams and messages for a protocol of one's own.
type listener interface {
	// Next waits for the next call, stream or message.
	Next(ctx context.Context) (*incoming, error)
	Close() error
}

// incoming is one call to answer, stream to accept or message to take.
type incoming struct {
	api.Incoming
	Accept func(ctx context.Context) (stream, error)
	Reply  func(ctx context.Context, data json.RawMessage, fail *api.Error) error
	// Gone is closed when the caller went away; no reply is wanted then.
	Gone <-chan struct{}
}

// daemon opens the connection on first use.
func (a *app) daemon() (daemon, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	p, err := a.locate()
	if err != nil {
		return nil, err
	}
	a.conn = dial(p.socket, a.identity())
	return a.conn, nil
}

// explain adds to an error of the daemon what only this side knows: why the
// socket does not answer, and how to repair it.
func (a *app) explain(err error) error {
	if err == nil || api.CodeOf(err) != api.CodeUnavailable {
		return err
	}
	p, locateErr := a.locate()
	if locateErr != nil {
		return locateErr
	}
	return a.explainAt(p, err)
}

func (a *app) explainAt(p place, err error) error {
	if err == nil || api.CodeOf(err) != api.CodeUnavailable {
		return err
	}
	var d net.Dialer
	c, cause := d.DialContext(a.ctx, "unix", p.socket)
	if cause == nil {
		_ = c.Close()
		return err
	}
	if a.ctx.Err() != nil {
		return a.ctx.Err()
	}
	return a.unreachable(p, cause)
}
