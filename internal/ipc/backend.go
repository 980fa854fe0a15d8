// Package ipc is the control socket: it reads requests of local clients, one
// JSON object a line, and answers them. What a request means is a Backend's
// business; framing, ids, descriptors, streams, listeners and the limits of one
// connection are dealt with here. service/api/PROTOCOL.md is the contract.
package ipc

import (
	"context"
	"encoding/json"
	"net"
	"os"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// Caller is who is at the other end of a connection, as the kernel told it when
// it connected.
type Caller struct {
	UID, GID uint32
	PID      int32
	User     string // name, or "uid-1000" where none is known
	Admin    bool
}

// Names of the budgets that Backend.Acquire is asked for.
const (
	BudgetRequests = "requests"
	BudgetStreams  = "streams"
)

// Backend is what the socket needs of the daemon. All methods may be called
// concurrently. Errors are *api.Error where the client is to know more than
// internal. release functions are called exactly once.
type Backend interface {
	// Admit decides whether the peer of conn may use the daemon, and counts the
	// connection until release. Its error is answered as one line with id null,
	// then the connection is closed; c.UID is told with it if it is known. It may take its time: it holds up nobody else.
	Admit(conn *net.UnixConn) (c Caller, release func(), err error)
	// Hello answers hello, even to callers who never say it. It does not block.
	Hello(c Caller, args api.HelloArgs) api.Hello
	// Identity is the own identity named by from; "" is the default one, which
	// is made on first use.
	Identity(ctx context.Context, c Caller, from string) (identity.ID, error)
	// Target resolves a contact of from, an id52, a peer id, or "self".
	Target(ctx context.Context, c Caller, from identity.ID, target string) (identity.ID, error)
	// Acquire counts one request or stream in flight for the caller's uid. what is
	// BudgetRequests or BudgetStreams. It does not block.
	Acquire(c Caller, what string) (release func(), err error)
	// TakeBytes counts n more bytes that are held in memory for the caller's uid,
	// until GiveBytes; all or none. Neither blocks.
	TakeBytes(c Caller, n int) error
	GiveBytes(c Caller, n int)
	// Route passes a request through access and to its handler, and returns when
	// it is over.
	Route(ctx context.Context, r *router.Request) (json.RawMessage, error)
	// Verb does a management verb and owns files, of which there are as many as
	// api.Verbs says; administrators' verbs come from administrators only. The
	// answer is marshalled to JSON; nil is {}.
	Verb(ctx context.Context, c Caller, r *api.Request, files []*os.File) (any, error)
	// Listen makes h serve protocol and instance of owner, an identity of the
	// caller, until unregister, which does not wait for requests under way.
	// conflict when somebody serves it already.
	Listen(c Caller, owner identity.ID, protocol, instance string, kinds []router.Kind, h router.Handler) (unregister func(), err error)
	// ContactName is owner's name for who, or "".
	ContactName(owner, who identity.ID) string
	// EventCursor is the cursor of the latest event.
	EventCursor() uint64
	// NextEvents waits for events behind cursor that the caller may see, of one of
	// kinds (any if empty), and returns them with the cursor to go on from. The
	// first has Gap set if some are lost. The error is ctx's.
	NextEvents(ctx context.Context, c Caller, kinds []string, cursor uint64) ([]api.Event, uint64, error)
}
