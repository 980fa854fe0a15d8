package client

import (
	"context"
	"encoding/json"
	"net"
	"sync"

	"github.com/fastn-stack/fastnd/service/api"
)

// ListenOptions say what is served.
type ListenOptions struct {
	Protocol string
	Instance string   // "default" if empty
	From     string   // Options.From if empty
	Kinds    []string // "call", "stream", "message"; the first two if empty
	// Patient waits for a daemon that is away, as one that restarts, for as long as
	// the context lasts, instead of telling unavailable.
	Patient bool
}

// Listener serves a protocol of an own identity, on a connection of its own. The
// registration ends with it. It is safe for concurrent use.
type Listener struct {
	c    *Client
	link *link

	mu      sync.Mutex
	waiting []*Incoming          // not yet returned by Next; the daemon bounds them
	open    map[string]*Incoming // not yet answered
	news    chan struct{}        // holds one if waiting may have grown
}

// Listen registers this program as the server of a protocol. conflict if
// somebody serves it already.
func (c *Client) Listen(ctx context.Context, o ListenOptions) (*Listener, error) {
	data, err := api.Marshal(api.ListenArgs{Kinds: o.Kinds})
	if err != nil {
		return nil, api.AsError(err)
	}
	r := &api.Request{Type: api.TypeListen, Protocol: o.Protocol, Instance: o.Instance, From: o.From, Data: data}
	c.complete(ctx, r)
	if !o.Patient {
		return c.listen(ctx, r)
	}
	var l *Listener
	there := true
	err = c.steadily(ctx, &there, func() (err error) {
		l, err = c.listen(ctx, r)
		return err
	})
	return l, err
}

func (c *Client) listen(ctx context.Context, r *api.Request) (*Listener, error) {
	for again := false; ; again = true {
		conn, err := c.dial(ctx)
		if err != nil {
			return nil, err
		}
		l := newListener(c, conn)
		_, unsent, err := l.link.do(ctx, r, nil)
		if err == nil {
			return l, nil
		}
		l.link.close()
		if !unsent || again {
			return nil, err
		}
	}
}

func newListener(c *Client, conn *net.UnixConn) *Listener {
	l := &Listener{c: c, open: make(map[string]*Incoming), news: make(chan struct{}, 1)}
	l.link = newLink(conn, l.told)
	return l
}

// told runs on the link's reader.
func (l *Listener) told(_ string, data json.RawMessage) {
	var in api.Incoming
	if json.Unmarshal(data, &in) != nil {
		return // of a newer daemon; its caller's time runs out
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if in.Cancel {
		if known := l.open[in.Incoming]; known != nil {
			known.cancel()
			delete(l.open, in.Incoming)
		}
		return
	}
	i := &Incoming{Incoming: in, l: l}
	i.ctx, i.cancel = context.WithCancel(context.Background())
	l.open[in.Incoming] = i
	l.waiting = append(l.waiting, i)
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// Next waits for the next call, stream or message. unavailable when the connection to the
// daemon, and with it the registration, has ended: listen again, with Patient if
// the daemon may be restarting.
func (l *Listener) Next(ctx context.Context) (*Incoming, error) {
	for {
		if i := l.take(); i != nil {
			return i, nil
		}
		select {
		case <-l.news:
		case <-ctx.Done():
			return nil, contextError(ctx)
		case <-l.link.done:
			if i := l.take(); i != nil {
				return i, nil
			}
			l.cancelAll()
			return nil, unavailable(l.c.path, "the connection that listens has ended").
				WithHint("listen again")
		}
	}
}

func (l *Listener) take() *Incoming {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) > 0 {
		i := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		if len(l.waiting) > 0 {
			select {
			case l.news <- struct{}{}:
			default:
			}
		}
		if i.ctx.Err() == nil {
			return i
		}
	}
	return nil
}

// Serve calls handle for each call, stream and message, in a goroutine of its own, until
// ctx ends or the connection does; it returns when all have returned. The error
// is nil if ctx ended.
func (l *Listener) Serve(ctx context.Context, handle func(context.Context, *Incoming)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		i, err := l.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		wg.Go(func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(i.ctx, cancel)()
			handle(ctx, i)
		})
	}
}

// Close ends the registration. Streams that were accepted go on.
func (l *Listener) Close() error {
	l.link.close()
	l.cancelAll()
	return nil
}

func (l *Listener) cancelAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.open {
		i.cancel()
	}
	clear(l.open)
}

// Incoming is a call to answer with Reply or Fail, a stream to Accept, or a message
// to take with Reply. A message that is not taken, or failed, is told again, also
// to the next program that listens, with the same MessageID and data; so may be
// one whose Reply failed.
type Incoming struct {
	api.Incoming
	l      *Listener
	ctx    context.Context
	cancel context.CancelFunc
}

// Done is closed when the caller has gone away, or the call or message was answered.
func (i *Incoming) Done() <-chan struct{} { return i.ctx.Done() }

// Reply answers a call with data, valid JSON or empty, or takes a message, whose
// sender gets no data. not_found if the caller has gone away.
func (i *Incoming) Reply(ctx context.Context, data json.RawMessage) error {
	return i.reply(ctx, &api.Request{Data: data})
}

// Fail answers a call with an error; a message is told again later. The code is handler_failed if empty, and else
// one that a program may use; see PROTOCOL.md.
func (i *Incoming) Fail(ctx context.Context, e *api.Error) error {
	return i.reply(ctx, &api.Request{Error: e})
}

func (i *Incoming) reply(ctx context.Context, r *api.Request) error {
	r.Type, r.Incoming = api.TypeReply, i.Incoming.Incoming
	_, _, err := i.l.link.do(ctx, r, nil)
	if err == nil {
		i.forget()
	}
	return err
}

// Accept takes a stream, once, on a connection of its own. not_found if the
// caller has gone away.
func (i *Incoming) Accept(ctx context.Context) (*Stream, error) {
	s, err := i.l.c.openStream(ctx, &api.Request{Type: api.TypeAccept, Incoming: i.Incoming.Incoming}, i.Incoming.Incoming)
	i.forget()
	return s, err
}

func (i *Incoming) forget() {
	i.l.mu.Lock()
	defer i.l.mu.Unlock()
	delete(i.l.open, i.Incoming.Incoming)
	if i.Kind != "stream" {
		i.cancel()
	}
}
