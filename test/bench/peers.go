package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/process"
)

// settle is what a daemon takes to notice that it is idle, and to give back what
// it does not need.
const settle = 12 * time.Second

// benchPeers: what a connected peer adds to a daemon's memory. Each is a node of
// its own in this process, with an identity that is a contact, and has made a call.
// The daemon starts anew between the tickets and the measurement: what it needs
// once, or for a contact that is away, is not counted.
func benchPeers(ctx context.Context, b *bench) (err error) {
	const peers = 500
	d, err := process.Start(ctx, b.bin, process.Options{Config: wideBudgets})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	all := make([]*benchPeer, 1+peers)
	for i := range all {
		if all[i], err = newPeer(ctx, d); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, all[i].host.Close()) }()
	}
	if err := errors.Join(d.Stop(), d.Run(ctx)); err != nil {
		return err
	}
	var before float64
	for i, p := range all {
		if err := p.call(ctx); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		// The first has brought the code into memory.
		if before, err = settled(ctx, d); err != nil {
			return err
		}
	}
	after, err := settled(ctx, d)
	if err != nil {
		return err
	}
	var list []api.Peer
	if err := d.Client.Verb(ctx, api.VerbPeerList, nil, &list); err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(p api.Peer) bool { return !p.Connected })
	if len(list) != len(all) {
		return fmt.Errorf("%d of %d peers are connected", len(list), len(all))
	}
	b.add(under(fmt.Sprintf("memory of a connected peer (%d)", peers), (after-before)/peers, "KiB", 100))
	return nil
}

// settled is the memory of d when it has become idle, in KiB.
func settled(ctx context.Context, d *process.Daemon) (float64, error) {
	if err := pause(ctx, settle); err != nil {
		return 0, err
	}
	return d.RSS()
}

// benchPeer is a node in this process, with an identity.
type benchPeer struct {
	host *p2p.Host
	own  *identity.Delegation
	to   identity.ID // the identity at the daemon
	node identity.ID // the daemon's
}

// newPeer starts a node with an identity that becomes a contact of d's user by a
// ticket.
func newPeer(ctx context.Context, d *process.Daemon) (_ *benchPeer, err error) {
	var invitation api.Invitation
	if err := d.Client.Verb(ctx, api.VerbContactInvite, api.InviteArgs{}, &invitation); err != nil {
		return nil, err
	}
	ticket, delegation, err := identity.ParseTicket(invitation.Ticket, time.Now())
	if err != nil {
		return nil, err
	}
	key, err := identity.GenerateKey()
	if err != nil {
		return nil, err
	}
	person, err := identity.GenerateKey()
	if err != nil {
		return nil, err
	}
	p := &benchPeer{to: ticket.Identity, node: delegation.Node}
	if p.own, err = identity.Delegate(person, key.ID(), time.Now(), time.Hour); err != nil {
		return nil, err
	}
	book := p2ptest.NewBook()
	book.Add(p.node, ticket.Addresses...)
	o := p2p.Options{Key: key, Listen: []string{"127.0.0.1"}, QUIC: true, Book: book}
	if p.host, err = p2p.New(o, p2ptest.ServeFunc(p2ptest.Echo)); err != nil {
		return nil, err
	}
	redeem := &wire.Redeem{From: p.own.Raw, To: p.to[:], Secret: ticket.Secret[:]}
	if err := p.request(ctx, &wire.Frame{Body: &wire.Frame_Redeem{Redeem: redeem}}, nil); err != nil {
		return nil, errors.Join(err, p.host.Close())
	}
	return p, nil
}

func (p *benchPeer) call(ctx context.Context) error {
	open := &wire.Open{From: p.own.Raw, To: p.to[:], Protocol: api.ProtocolEcho, Kind: wire.Kind_KIND_CALL}
	return p.request(ctx, &wire.Frame{Body: &wire.Frame_Open{Open: open}}, hello)
}

func (p *benchPeer) request(ctx context.Context, f *wire.Frame, payload []byte) error {
	reply, _, err := p.host.Request(ctx, p.node, f, payload)
	if err != nil {
		return err
	}
	return reply.Err()
}
