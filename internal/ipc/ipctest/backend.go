// Package ipctest is a daemon in miniature behind a real control socket, for the
// tests of the socket, of its Go client and of clients in other languages.
package ipctest

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// VerbFunc does a management verb; it owns files.
type VerbFunc func(ctx context.Context, c ipc.Caller, r *api.Request, files []*os.File) (any, error)

// Backend answers as the daemon would: each uid has an identity "default" and
// "other", Echo is built in, programs that listen are found, nothing is refused.
// The fields are set before it serves.
type Backend struct {
	// Requests and Streams are the budgets of one uid; 0 is without bound.
	Requests, Streams int
	// Bytes is what a uid may have buffered; 0 is without bound.
	Bytes int
	// Refuse, if set, is the answer to every connection.
	Refuse error
	// As, if not 0, makes every new connection one of this uid and no administrator.
	As atomic.Uint32

	Events *Hub

	withdrawn chan struct{} // closed by Withdraw

	mu       sync.Mutex
	verbs    map[string]VerbFunc
	keys     map[uint32]map[string]identity.ID
	handlers map[service]router.Handler
	builtin  map[string]router.Handler
	used     map[string]int
	bytes    map[uint32]int
	noRoom   int
}

type service struct {
	owner              identity.ID
	protocol, instance string
}

// NewBackend makes a Backend that serves Echo.
func NewBackend() *Backend {
	b := &Backend{Events: newHub(), keys: make(map[uint32]map[string]identity.ID),
		handlers: make(map[service]router.Handler), builtin: make(map[string]router.Handler),
		used: make(map[string]int), bytes: make(map[uint32]int), verbs: make(map[string]VerbFunc), withdrawn: make(chan struct{})}
	b.Handle(api.ProtocolEcho, router.HandlerFunc(Echo))
	b.HandleVerb(api.VerbIdentityExport, b.Export)
	b.HandleVerb(api.VerbIdentityList, b.list)
	return b
}

// Handle makes h serve protocol for everybody, unless a program listens.
func (b *Backend) Handle(protocol string, h router.Handler) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.builtin[protocol] = h
}

// HandleVerb makes f do a verb; others answer an empty object.
func (b *Backend) HandleVerb(name string, f VerbFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.verbs[name] = f
}

// Withdraw ends every request with not_permitted.
func (b *Backend) Withdraw() { close(b.withdrawn) }

// InUse tells how much of a budget, or of "connections", is in use.
func (b *Backend) InUse(what string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used[what]
}

// Admit takes everybody.
func (b *Backend) Admit(conn *net.UnixConn) (ipc.Caller, func(), error) {
	if b.Refuse != nil {
		return ipc.Caller{UID: b.As.Load()}, nil, b.Refuse
	}
	release, err := b.acquire("connections", 0)
	if err != nil {
		return ipc.Caller{}, nil, err
	}
	if uid := b.As.Load(); uid != 0 {
		return ipc.Caller{UID: uid, User: "somebody"}, release, nil
	}
	c := ipc.Caller{User: "tester", Admin: true}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if u, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				c.UID, c.GID, c.PID = u.Uid, u.Gid, u.Pid
			}
		})
	}
	return c, release, err
}

// Hello tells versions.
func (b *Backend) Hello(c ipc.Caller, _ api.HelloArgs) api.Hello {
	return api.Hello{Daemon: "test", Version: api.Version, UID: c.UID, User: c.User, Admin: c.Admin, PID: os.Getpid()}
}

// Identity makes the two identities of a uid on first use.
func (b *Backend) Identity(_ context.Context, c ipc.Caller, from string) (identity.ID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := b.keys[c.UID]
	if ids == nil {
		ids = make(map[string]identity.ID)
		for _, name := range []string{"default", "other"} {
			key, err := identity.GenerateKey()
			if err != nil {
				return identity.ID{}, err
			}
			ids[name] = key.ID()
		}
		b.keys[c.UID] = ids
	}
	if from == "" {
		from = "default"
	}
	for name, id := range ids {
		if from == name || from == id.String() {
			return id, nil
		}
	}
	return identity.ID{}, api.Errorf(api.CodeNotFound, "you have no identity %q", from)
}

// Target takes "self", the name of an own identity, and any id52 or peer id.
func (b *Backend) Target(ctx context.Context, c ipc.Caller, from identity.ID, target string) (identity.ID, error) {
	if target == api.TargetSelf {
		return from, nil
	}
	if id, err := identity.ParseID(target); err == nil {
		return id, nil
	}
	id, err := b.Identity(ctx, c, target)
	if err != nil {
		return identity.ID{}, api.Errorf(api.CodeNotFound, "no contact %q", target)
	}
	return id, nil
}

// Acquire counts.
func (b *Backend) Acquire(_ ipc.Caller, what string) (func(), error) {
	limit := b.Requests
	if what == ipc.BudgetStreams {
		limit = b.Streams
	}
	return b.acquire(what, limit)
}

// TakeBytes counts.
func (b *Backend) TakeBytes(c ipc.Caller, n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Bytes > 0 && b.bytes[c.UID]+n > b.Bytes {
		b.noRoom++
		return api.Errorf(api.CodeOverBudget, "%s has %d of %d bytes", c.User, b.bytes[c.UID], b.Bytes)
	}
	b.bytes[c.UID] += n
	return nil
}

// GiveBytes counts.
func (b *Backend) GiveBytes(c ipc.Caller, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes[c.UID] -= n; b.bytes[c.UID] < 0 {
		panic("more bytes were given back than taken")
	}
}

// NoRoom tells how often TakeBytes refused.
func (b *Backend) NoRoom() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.noRoom
}

// BytesHeld tells how many bytes of all users are counted.
func (b *Backend) BytesHeld() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, held := range b.bytes {
		n += held
	}
	return n
}

func (b *Backend) acquire(what string, limit int) (func(), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if limit > 0 && b.used[what] >= limit {
		return nil, api.Errorf(api.CodeOverBudget, "budget %s of %d is used up", what, limit)
	}
	b.used[what]++
	var once sync.Once
	return func() {
		released := false
		once.Do(func() { released = true })
		if !released {
			panic("released twice: " + what)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.used[what]--
	}, nil
}

// Route finds a program that listens, else what is built in.
func (b *Backend) Route(ctx context.Context, r *router.Request) (json.RawMessage, error) {
	b.mu.Lock()
	h := b.handlers[service{r.To, r.Protocol, r.Instance}]
	if h == nil {
		h = b.builtin[r.Protocol]
	}
	b.mu.Unlock()
	if h == nil {
		return nil, api.Errorf(api.CodeProtocolUnavailable, "nobody serves %s", r.Protocol)
	}
	limited, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-b.withdrawn:
			cancel(api.Errorf(api.CodeNotPermitted, "access was withdrawn"))
		case <-limited.Done():
		}
	}()
	defer func() { cancel(nil); <-ended }()
	return h.Serve(limited, r)
}

// Verb does what Verbs says.
func (b *Backend) Verb(ctx context.Context, c ipc.Caller, r *api.Request, files []*os.File) (any, error) {
	b.mu.Lock()
	f := b.verbs[r.Type]
	b.mu.Unlock()
	if f != nil {
		return f(ctx, c, r, files)
	}
	for _, f := range files {
		f.Close()
	}
	return nil, nil
}

func (b *Backend) list(ctx context.Context, c ipc.Caller, _ *api.Request, _ []*os.File) (any, error) {
	if _, err := b.Identity(ctx, c, ""); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []api.Identity
	for _, name := range slices.Sorted(maps.Keys(b.keys[c.UID])) {
		all = append(all, api.Identity{Name: name, ID52: b.keys[c.UID][name].String(), Owner: c.User, Online: true, Protocols: []string{api.ProtocolEcho}})
	}
	return all, nil
}

// Export writes a line instead of a key.
func (b *Backend) Export(ctx context.Context, c ipc.Caller, r *api.Request, files []*os.File) (any, error) {
	defer files[0].Close()
	var args api.IdentityArgs
	if err := api.DecodeArgs(r.Data, &args); err != nil {
		return nil, err
	}
	id, err := b.Identity(ctx, c, args.Identity)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(files[0], "key of "+id.String()+"\n"); err != nil {
		return nil, err
	}
	return api.Identity{Name: args.Identity, ID52: id.String()}, nil
}

// Listen registers h.
func (b *Backend) Listen(_ ipc.Caller, owner identity.ID, protocol, instance string, kinds []router.Kind, h router.Handler) (func(), error) {
	s := service{owner, protocol, instance}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.handlers[s] != nil {
		return nil, api.Errorf(api.CodeConflict, "%s is served already", protocol)
	}
	b.handlers[s] = router.HandlerFunc(func(ctx context.Context, r *router.Request) (json.RawMessage, error) {
		if !slices.Contains(kinds, r.Kind) {
			return nil, api.Errorf(api.CodeProtocolUnavailable, "%s takes no %s", protocol, r.Kind)
		}
		return h.Serve(ctx, r)
	})
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.handlers, s)
	}, nil
}

// Listening counts the programs that listen.
func (b *Backend) Listening() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.handlers)
}

// ContactName is empty but for oneself.
func (b *Backend) ContactName(owner, who identity.ID) string {
	if owner == who {
		return api.TargetSelf
	}
	return ""
}

// EventCursor is that of the latest event.
func (b *Backend) EventCursor() uint64 { return b.Events.cursor() }

// NextEvents waits for events.
func (b *Backend) NextEvents(ctx context.Context, _ ipc.Caller, kinds []string, cursor uint64) ([]api.Event, uint64, error) {
	return b.Events.next(ctx, kinds, cursor)
}
