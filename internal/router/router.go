// Package router is the spine: whatever comes in, from a local client or a
// peer, is one Request, passes access once, and goes to one Handler.
package router

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// Kind is how a request is answered.
type Kind uint8

const (
	Call    Kind = iota + 1 // one payload each way
	Stream                  // raw bytes both ways after Accept
	Message                 // durable, answered after commit
)

func (k Kind) String() string {
	switch k {
	case Call:
		return "call"
	case Stream:
		return "stream"
	case Message:
		return "message"
	}
	return "unknown"
}

// Request is one call or stream between two identities. From is proven: by
// ownership for a local client, by a delegation for a peer.
type Request struct {
	From     identity.ID
	To       identity.ID
	Protocol string
	Instance string
	Kind     Kind
	Payload  json.RawMessage // valid JSON or empty, at most api.MaxPayload bytes
	Timeout  time.Duration   // what the caller allowed; the context carries the deadline
	Trace    string          // names the request in both nodes' journals
	// MessageID is the sender's name of a Message, the same each time it is told.
	MessageID string

	// Node is the node that sent the request; zero for a local client.
	Node identity.ID
	// Accept answers a Stream request with "streaming" and returns its bytes.
	// A handler calls it at most once, and owns what it returns.
	Accept func() (Conn, error)
}

// Local tells that a client of this machine made the request.
func (r *Request) Local() bool { return r.Node.IsZero() }

// Conn is one stream of bytes. Each direction closes on its own: CloseWrite
// ends ours, io.EOF from Read is the other side's clean end. A Read or Write
// that fails otherwise was reset; its error is an *api.Error.
//
// One goroutine may read while another writes. Reset may be called at any time
// by anyone, repeatedly; it ends both directions at once and tells the other
// side code. Close after both ends are done releases the stream; before that
// it is Reset(CodeAborted).
type Conn interface {
	io.Reader
	io.Writer
	CloseWrite() error
	Reset(code api.Code)
	Close() error
}

// Abortable is a Conn that tells of an abort also those who neither read nor
// write it now: the other side may have ended its direction before it aborted.
type Abortable interface {
	Conn
	// Aborted ends, with the *api.Error as its cause, when the other side aborted.
	Aborted() context.Context
}

// Handler answers requests that passed access. Serve returns when the request
// is over and everything that it started has ended. For a Call the result is
// the answer. For a Stream it calls r.Accept, and the result is ignored; an
// error before Accept is the answer, one after it resets the stream.
// ctx ends when the caller went away, at the deadline of a Call, or when access
// is withdrawn. Errors are *api.Error where the caller is to know more than
// CodeInternal.
type Handler interface {
	Serve(ctx context.Context, r *Request) (json.RawMessage, error)
}

// HandlerFunc makes a function a Handler.
type HandlerFunc func(ctx context.Context, r *Request) (json.RawMessage, error)

func (f HandlerFunc) Serve(ctx context.Context, r *Request) (json.RawMessage, error) {
	return f(ctx, r)
}
