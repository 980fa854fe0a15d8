package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// dial makes the daemon at a socket usable; it connects with the first request.
func dial(socket, from string) daemon {
	return clientDaemon{client.New(socket, client.Options{Name: "fastn/" + version, From: from,
		Trust: trusted(socket)})}
}

// clientDaemon puts the shapes of service/client under the interface that the
// commands, and their tests, use.
type clientDaemon struct {
	*client.Client
}

func (d clientDaemon) Verb(ctx context.Context, verb string, args any, files ...*os.File) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, api.DefaultTimeout+grace)
	defer cancel()
	var raw json.RawMessage
	err := d.Client.Verb(ctx, verb, args, &raw, files...)
	return raw, frozen(ctx, answer(err))
}

// grace is how much longer than the daemon's own time for a request its answer may
// take.
const grace = 5 * time.Second

// frozen tells that no answer came though the time for it has passed.
func frozen(ctx context.Context, err error) error {
	if err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return noAnswer{api.Errorf(api.CodeTimeout, "the fastn daemon took the request but does not answer").
		WithHint(`"fastn daemon status" tells whether it hangs; what was asked for may be done`)}
}

func (d clientDaemon) Call(ctx context.Context, r api.Request) (json.RawMessage, error) {
	limit := api.DefaultTimeout
	if r.TimeoutMS > 0 {
		limit = time.Duration(r.TimeoutMS) * time.Millisecond
	} else {
		r.TimeoutMS = limit.Milliseconds()
	}
	ctx, cancel := context.WithTimeout(ctx, limit+grace)
	defer cancel()
	raw, err := d.Client.Call(ctx, clientRequest(r))
	return raw, frozen(ctx, answer(err))
}

func (d clientDaemon) Stream(ctx context.Context, r api.Request) (stream, error) {
	s, err := d.Client.Stream(ctx, clientRequest(r))
	if err != nil {
		return nil, answer(err)
	}
	return clientStream{s}, nil
}

func clientRequest(r api.Request) client.Request {
	return client.Request{Target: r.Target, Protocol: r.Protocol, Instance: r.Instance, From: r.From,
		Data: r.Data, Timeout: time.Duration(r.TimeoutMS) * time.Millisecond}
}

func (d clientDaemon) Listen(ctx context.Context, r api.Request, again bool, kinds ...string) (listener, error) {
	l, err := d.Client.Listen(ctx, client.ListenOptions{Protocol: r.Protocol, Instance: r.Instance, From: r.From, Kinds: kinds, Patient: again})
	if err != nil {
		return nil, answer(err)
	}
	return clientListener{l}, nil
}

func (d clientDaemon) Send(ctx context.Context, r api.Request) (api.SendResult, error) {
	ctx, cancel := context.WithTimeout(ctx, api.DefaultTimeout+grace)
	defer cancel()
	sent, err := d.Client.Send(ctx, client.Message{Target: r.Target, Protocol: r.Protocol, Instance: r.Instance, From: r.From,
		Data: r.Data, ID: r.MessageID, Life: time.Duration(r.ExpiresS) * time.Second})
	return sent, frozen(ctx, answer(err))
}

func (d clientDaemon) Subscribe(ctx context.Context, args api.SubscribeArgs, each func(api.Event) error) error {
	s, err := d.Client.Subscribe(ctx, args)
	if err != nil {
		return answer(err)
	}
	defer s.Close()
	for {
		e, err := s.Next(ctx)
		if err != nil {
			return err
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

// answered marks an error that the daemon or a peer gave: the command line was
// one that this program can send.
type answered struct{ error }

func (a answered) Unwrap() error { return a.error }

func answer(err error) error {
	if err == nil {
		return nil
	}
	return answered{err}
}

type clientStream struct {
	*client.Stream
}

// Reset is Close, which aborts what has not ended, and wakes reader and writer.
func (s clientStream) Reset() error { return s.Close() }

type clientListener struct {
	*client.Listener
}

func (l clientListener) Next(ctx context.Context) (*incoming, error) {
	i, err := l.Listener.Next(ctx)
	if err != nil {
		return nil, err
	}
	return &incoming{
		Incoming: i.Incoming,
		Accept: func(ctx context.Context) (stream, error) {
			s, err := i.Accept(ctx)
			if err != nil {
				return nil, err
			}
			return clientStream{s}, nil
		},
		Reply: func(ctx context.Context, data json.RawMessage, fail *api.Error) error {
			if fail != nil {
				return i.Fail(ctx, fail)
			}
			return i.Reply(ctx, data)
		},
		Gone: i.Done(),
	}, nil
}
