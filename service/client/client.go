// Package client is the Go client of the fastn daemon: calls, streams, serving a
// protocol, events and management verbs over the control socket. The contract
// is service/api/PROTOCOL.md; the package imports service/api only.
//
// Every error is an *api.Error, to be told apart by its code. Two codes come from
// here: unavailable, when the daemon cannot be reached and nothing was sent, and
// outcome_unknown, when the connection broke behind a request that was sent. After
// either the next request connects anew.
package client

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// Options of a Client.
type Options struct {
	// Name is the program and its version, as "fastn/1.0"; the daemon may note it.
	Name string
	// From is the own identity to speak for, by name or id52; empty is the default one.
	From string
	// Trust is asked for the uid of the process that listens at the socket, before
	// anything is sent to it; false is unavailable. Nil trusts all.
	Trust func(uid uint32) bool
}

// Client shares one connection among its calls and verbs and opens one more for
// each stream, listener and subscription. It is safe for concurrent use.
type Client struct {
	path string
	o    Options
	turn chan struct{} // held while what follows is looked at or changed
	link *link
	old  []*link     // retired, with answers still to come
	met  atomic.Bool // a daemon was there once
}

// Dial connects to the daemon at the socket path; see ResolveSocket.
func Dial(ctx context.Context, path string, o Options) (*Client, error) {
	c := New(path, o)
	if _, err := c.connected(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// New makes a Client that connects with its first request.
func New(path string, o Options) *Client {
	return &Client{path: path, o: o, turn: make(chan struct{}, 1)}
}

// Path is the socket that the client uses.
func (c *Client) Path() string { return c.path }

// Close ends the shared connection: what waits on it gets outcome_unknown. Streams,
// listeners and subscriptions are closed by their owners.
func (c *Client) Close() error {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.link != nil {
		c.old = append(c.old, c.link)
		c.link = nil
	}
	for _, l := range c.old {
		l.close()
	}
	c.old = nil
	return nil
}

// Request is a call, or the opening of a stream.
type Request struct {
	Target   string // contact name, id52, peer id or "self"
	Protocol string
	Instance string          // "default" if empty
	From     string          // Options.From if empty
	Data     json.RawMessage // valid JSON or empty, at most api.MaxPayload bytes
	// Timeout is how long the daemon may take; if 0 what is left to the context's
	// deadline, or api.DefaultTimeout.
	Timeout time.Duration
}

func (c *Client) request(kind string, q Request) *api.Request {
	r := &api.Request{Type: kind, Target: q.Target, Protocol: q.Protocol, Instance: q.Instance, From: q.From, Data: q.Data}
	if q.Timeout > 0 {
		r.TimeoutMS = max(1, q.Timeout.Milliseconds())
	}
	return r
}

// Call makes one call and returns the answer's data, nil if it has none.
func (c *Client) Call(ctx context.Context, q Request) (json.RawMessage, error) {
	return c.do(ctx, c.request(api.TypeCall, q))
}

// Hello tells the versions of client and daemon to each other.
func (c *Client) Hello(ctx context.Context) (api.Hello, error) {
	var h api.Hello
	err := c.Verb(ctx, api.TypeHello, api.HelloArgs{Client: c.o.Name, Version: api.Version}, &h)
	return h, err
}

// Verb does a management verb. args becomes the request's data, nothing if nil;
// the answer's data is read into out, a pointer, unless that is nil. files ride
// on the request as descriptors and stay the caller's.
func (c *Client) Verb(ctx context.Context, name string, args, out any, files ...*os.File) error {
	r := &api.Request{Type: name}
	if args != nil {
		data, err := api.Marshal(args)
		if err != nil {
			return api.Errorf(api.CodeBadRequest, "arguments of %s: %v", name, err)
		}
		r.Data = data
	}
	data, err := c.do(ctx, r, files...)
	if err != nil || out == nil {
		return err
	}
	return readAnswer(name, data, out)
}

func readAnswer(name string, data json.RawMessage, out any) error {
	if err := json.Unmarshal(data, out); err != nil {
		return api.Errorf(api.CodeInternal, "the daemon's answer to %s cannot be read: %v", name, err).
			WithHint(`compare the versions with "fastn version"`)
	}
	return nil
}

// do sends r on the shared connection and waits for its answer. It is sent again,
// once, where it is certain that nothing was done.
func (c *Client) do(ctx context.Context, r *api.Request, files ...*os.File) (json.RawMessage, error) {
	c.complete(ctx, r)
	for again := false; ; again = true {
		l, err := c.connected(ctx)
		if err != nil {
			return nil, err
		}
		data, unsent, err := l.do(ctx, r, files)
		if err == nil || !unsent || again {
			return data, err
		}
		l.retire()
	}
}

// complete fills in the identity and the time allowed.
func (c *Client) complete(ctx context.Context, r *api.Request) {
	if r.From == "" {
		r.From = c.o.From
	}
	if deadline, ok := ctx.Deadline(); ok && r.TimeoutMS == 0 {
		r.TimeoutMS = max(1, time.Until(deadline).Milliseconds())
	}
}

// connected returns the shared connection, made anew if it broke.
func (c *Client) connected(ctx context.Context) (*link, error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, contextError(ctx)
	}
	defer func() { <-c.turn }()
	if c.link != nil && c.link.usable() {
		return c.link, nil
	}
	c.old = slices.DeleteFunc(c.old, (*link).ended)
	if c.link != nil {
		c.old = append(c.old, c.link)
		c.link = nil
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.met.Store(true)
	c.link = newLink(conn, nil)
	return c.link, nil
}

// contextError is the error of a ctx that has ended.
func contextError(ctx context.Context) *api.Error {
	if ctx.Err() == context.DeadlineExceeded {
		return api.Errorf(api.CodeTimeout, "no answer within the time allowed")
	}
	return api.Errorf(api.CodeCancelled, "cancelled")
}
