package daemon

import (
	"context"
	"errors"
	"net/netip"

	"github.com/fastn-stack/fastnd/internal/access"
	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// gate is access as the router and remote need it.
type gate node

// Incoming implements router.Access.
func (g *gate) Incoming(owner, from identity.ID, protocol, instance string) error {
	if access.Allowed(g.store, owner, from, protocol, instance) {
		return nil
	}
	if _, contact := g.store.Contact(owner, from); !contact || g.store.Blocked(owner, from) {
		return api.Refusal()
	}
	g.d.log.Debug("refused a contact", "identity", owner.String(), "peer", from.String(), "protocol", protocol, "instance", instance)
	return api.Errorf(api.CodeRefused, "%s is not granted to you", api.ServiceName(protocol, instance)).
		WithHint("ask its owner for it, who runs %s", api.GrantCommand("YOU", protocol, instance))
}

// Outgoing implements router.Access.
func (g *gate) Outgoing(owner, to identity.ID) error {
	if !g.store.Blocked(owner, to) {
		return nil
	}
	who := to.String()
	if name, ok := g.store.Contact(owner, to); ok {
		who = name
	}
	return api.Errorf(api.CodeNotPermitted, "you blocked %s", who).WithHint(`"fastn contact unblock %s" ends that`, api.ShellQuote(who))
}

// AcquirePeer implements router.Budget. A stranger who may use a protocol
// granted to anyone is told no more than any stranger.
func (g *gate) AcquirePeer(owner, from identity.ID, kind router.Kind) (func(), error) {
	what := access.Requests
	if kind == router.Stream {
		what = access.Streams
	}
	release, refusal := g.d.budgets.AcquirePeer(from, what)
	if refusal == nil {
		return release, nil
	}
	if _, contact := g.store.Contact(owner, from); !contact {
		return nil, api.Refusal()
	}
	return nil, refusal
}

// MayWhois implements remote.Gate.
func (g *gate) MayWhois(owner, from identity.ID) bool {
	here, _ := g.roster.Here(owner)
	return here && access.MayWhois(g.store, owner, from)
}

// Limited implements remote.Gate. Contacts, and nodes where one lives, are
// never held up for what strangers do, be it from the same address. One whom all
// have blocked that had it as a contact is a stranger.
func (g *gate) Limited(from, node identity.ID, ip netip.Addr) bool {
	if g.store.NodeTrusted(node) || g.store.Trusted(from) {
		return false
	}
	if from.IsZero() {
		ip = netip.Addr{}
	}
	if !g.d.budgets.Throttled(from, node, p2p.Network(ip)) {
		return false
	}
	g.refused.Add(1)
	return true
}

// Refused implements remote.Gate.
func (g *gate) Refused(from, node identity.ID, ip netip.Addr) {
	if g.store.Trusted(from) {
		return
	}
	g.refused.Add(1)
	if from.IsZero() {
		from = node // else all that were not proven would share one rate
	}
	if g.d.budgets.Refused(from, node, p2p.Network(ip)) {
		g.d.log.Debug("a stranger's opens are over their rate", "peer", node.String(), "refused", g.d.budgets.RefusedOpens(node))
	}
}

// Redeem implements remote.Gate.
func (g *gate) Redeem(ctx context.Context, owner, by identity.ID, secret identity.Secret) error {
	if here, _ := g.roster.Here(owner); !here || owner == by {
		return api.Refusal()
	}
	name, again, err := g.store.Redeem(ctx, owner, secret, by, g.d.o.clock()())
	switch {
	case errors.Is(err, store.ErrNoTicket):
		return api.Refusal()
	case errors.Is(err, store.ErrTicketUsed):
		return api.Errorf(api.CodeExpired, "the ticket was used already").
			WithHint("ask its inviter for a new one, who runs fastn invite")
	case errors.Is(err, store.ErrTicketExpired):
		return api.Errorf(api.CodeExpired, "the ticket has expired").
			WithHint("ask its inviter for a new one, who runs fastn invite")
	case err != nil:
		return g.d.explain(err)
	}
	if !again {
		g.d.log.Info("a ticket was redeemed", "identity", owner.String(), "contact", by.String(), "name", name)
	}
	return nil
}

// names is the store as the roster needs it.
type names struct{ *store.Store }

func (n names) Identity(id identity.ID) (name string, online, ok bool) {
	i, ok := n.IdentityInfo(id)
	return i.Name, i.Online, ok
}

func (n names) RemoveIdentity(ctx context.Context, id identity.ID) error {
	err := n.Store.RemoveIdentity(ctx, id)
	if api.CodeOf(err) == api.CodeNotFound {
		return nil // the store was lost before: nothing to forget
	}
	return err
}

// frames hands what peers send to remote.
type frames node

func (f *frames) ServeFrame(ctx context.Context, from p2p.Peer, frame *wire.Frame, payload []byte,
	accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
	select {
	case <-f.ready:
	case <-ctx.Done():
		return wire.ReplyError(api.Errorf(api.CodeTimeout, "the peer's machine is starting")), nil
	}
	if f.d.stopping.Load() {
		return wire.ReplyError(api.Errorf(api.CodeOffline, "the peer's daemon is stopping").WithHint("try again in a moment")), nil
	}
	return f.remote.ServeFrame(ctx, from.Node, from.IP, frame, payload, accept)
}
