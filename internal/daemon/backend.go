package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/fastn-stack/fastnd/internal/access"
	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/peercred"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

// backend is the daemon as the control socket needs it.
type backend Daemon

// running is the node, or the error that tells why there is none.
func (b *backend) running() (*node, error) {
	if n := b.node.Load(); n != nil {
		return n, nil
	}
	if p := b.locked.Load(); p != nil {
		return nil, api.Errorf(api.CodeLocked, "the daemon is locked: %s", p.Text).WithHint("as administrator: %s", p.Fix)
	}
	return nil, api.Errorf(api.CodeUnavailable, "the daemon is stopping")
}

func (b *backend) Admit(conn *net.UnixConn) (ipc.Caller, func(), error) {
	cred, err := peercred.From(conn)
	if err != nil {
		return ipc.Caller{}, nil, err
	}
	c := ipc.Caller{UID: cred.UID, GID: cred.GID, PID: cred.PID}
	if int(cred.PID) == os.Getpid() && cred.UID == b.policy.OwnUID {
		c.User = b.names.get(cred.UID)
		return c, func() {}, nil // the watchdog's probe: free, so that a full budget does not look like a hang
	}
	// What costs nothing is asked first: a name may have to be fetched from far.
	admin, err := b.policy.Check(cred)
	if err != nil {
		b.log.Info("refused a client", "uid", cred.UID, peerOf(cred.UID), "error", err)
		return c, nil, err
	}
	release, refusal := b.budgets.AcquireUID(cred.UID, access.Connections)
	if refusal != nil && admin {
		release, refusal = b.spare.take(refusal)
	}
	if refusal != nil {
		if most := b.holders.most(cred.UID); most != "" {
			refusal = refusal.WithHint("%s; yours are held by %s: end what is not needed", refusal.Hint, most)
		}
		b.log.Warn("a user's connections are used up", systemd.MsgBudgetExhausted.Attr(), "uid", cred.UID, peerOf(cred.UID), "error", refusal)
		return c, nil, refusal
	}
	c.Admin, c.User = admin, b.names.get(cred.UID)
	leave := b.holders.enter(cred.UID, cred.PID)
	return c, func() { leave(); release() }, nil
}

// spareConnections are for administrators whose own budget is used up: else they
// could not even look at what uses it.
const spareConnections = 8

type spare struct{ used atomic.Int64 }

func (s *spare) take(refusal *api.Error) (release func(), _ *api.Error) {
	if s.used.Add(1) > spareConnections {
		s.used.Add(-1)
		return nil, refusal
	}
	return func() { s.used.Add(-1) }, nil
}

// peerOf makes a local user one whose records are limited like a peer's.
func peerOf(uid uint32) slog.Attr {
	return slog.String(systemd.PeerKey, "uid "+strconv.FormatUint(uint64(uid), 10))
}

func (b *backend) Hello(c ipc.Caller, args api.HelloArgs) api.Hello {
	b.log.Debug("a client said hello", "uid", c.UID, "client", args.Client)
	h := api.Hello{Daemon: b.o.Version, Version: api.Version, UID: c.UID, User: c.User, Admin: c.Admin, PerUser: b.o.perUser(),
		PID: os.Getpid(), Locked: b.locked.Load() != nil}
	if n := b.node.Load(); n != nil {
		h.Node = n.host.Node().String()
	}
	return h
}

func (b *backend) Identity(ctx context.Context, c ipc.Caller, from string) (identity.ID, error) {
	n, err := b.running()
	if err != nil {
		return identity.ID{}, err
	}
	p, err := n.verbs.Identity(ctx, c, from)
	if err != nil {
		return identity.ID{}, n.d.explain(err)
	}
	return p.ID, p.Usable()
}

func (b *backend) Target(_ context.Context, _ ipc.Caller, from identity.ID, target string) (identity.ID, error) {
	n, err := b.running()
	if err != nil {
		return identity.ID{}, err
	}
	return n.verbs.Target(from, target)
}

func (b *backend) Acquire(c ipc.Caller, what string) (func(), error) {
	kind := access.Requests
	if what == ipc.BudgetStreams {
		kind = access.Streams
	}
	release, refusal := b.budgets.AcquireUID(c.UID, kind)
	if refusal != nil {
		return nil, refusal
	}
	return release, nil
}

func (b *backend) TakeBytes(c ipc.Caller, n int) error {
	if refusal := b.budgets.TakeUID(c.UID, access.Bytes, n); refusal != nil {
		return refusal
	}
	return nil
}

func (b *backend) GiveBytes(c ipc.Caller, n int) { b.budgets.GiveUID(c.UID, access.Bytes, n) }

func (b *backend) Route(ctx context.Context, r *router.Request) (json.RawMessage, error) {
	n, err := b.running()
	if err != nil {
		return nil, err
	}
	if r.Trace == "" {
		r.Trace = strconv.FormatUint(rand.Uint64(), 36)
	}
	data, err := n.router.Route(ctx, r)
	if err != nil {
		n.d.log.Debug("a local request failed", "trace", r.Trace, "from", r.From.String(), "to", r.To.String(),
			"protocol", r.Protocol, "kind", r.Kind.String(), "error", err)
	}
	return data, err
}

func (b *backend) Verb(ctx context.Context, c ipc.Caller, r *api.Request, files []*os.File) (any, error) {
	d := (*Daemon)(b)
	switch r.Type {
	case api.VerbDaemonStatus:
		return d.Status(ctx, c), nil
	case api.VerbDaemonReload:
		return d.Reload(ctx)
	case api.VerbDaemonStop:
		return nil, d.requestStop()
	case api.VerbDaemonDisconnect:
		return d.disconnect(r.Data)
	}
	n, err := b.running()
	if err != nil {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	answer, err := n.verbs.Do(ctx, c, r, files)
	return answer, d.explain(err)
}

func (b *backend) Listen(c ipc.Caller, owner identity.ID, protocol, instance string, kinds []router.Kind, h router.Handler) (func(), error) {
	n, err := b.running()
	if err != nil {
		return nil, err
	}
	unregister, err := n.router.Listen(c.UID, owner, protocol, instance, kinds, h)
	if err != nil {
		return nil, err
	}
	e := api.Event{Kind: api.EventListening, Identity: owner.String(), Protocol: protocol, Text: "a program serves " + protocol}
	b.hub.Publish(e, c.UID)
	leave := func() {}
	if slices.Contains(kinds, router.Message) {
		leave = n.mail.listening(owner, protocol, instance, h)
	}
	release := n.reach.serve(owner, protocol+" "+instance)
	return func() {
		leave()
		release()
		unregister()
		e.Kind, e.Text = api.EventListenEnded, "a program stopped serving "+protocol
		b.hub.Publish(e, c.UID)
	}, nil
}

func (b *backend) ContactName(owner, who identity.ID) string {
	n := b.node.Load()
	if n == nil {
		return ""
	}
	if owner == who {
		return api.TargetSelf
	}
	name, _ := n.store.Contact(owner, who)
	return name
}

func (b *backend) EventCursor() uint64 { return b.hub.Cursor() }

func (b *backend) NextEvents(ctx context.Context, c ipc.Caller, kinds []string, cursor uint64) ([]api.Event, uint64, error) {
	return b.hub.Next(ctx, c.UID, kinds, cursor)
}
