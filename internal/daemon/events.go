package daemon

import (
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/service/api"
)

// changed follows every change of the store: it ends what is no longer allowed
// and tells the owner.
func (n *node) changed(c store.Change) {
	if c.Kind.Withdraws() {
		n.router.Recheck(c.Owner, c.Who, cuts[c.Kind])
	}
	switch c.Kind {
	case store.ContactAdded, store.ContactRemoved, store.ContactBlocked, store.ContactUnblocked:
		n.reach.changed(c.Owner)
		n.reach.judge()
	case store.IdentityRemoved:
		n.reach.judge()
	}
	switch c.Kind {
	case store.ContactAdded, store.ContactUnblocked, store.GrantAdded, store.IdentityOnline:
		n.mail.recheck(c.Owner)
	}
	switch c.Kind {
	case store.ContactBlocked, store.ContactUnblocked:
		n.mail.courier.Allowed(c.Owner, c.Who)
	}
	if c.Kind == store.IdentityOnline {
		n.mail.courier.Resume(c.Owner)
		n.mail.courier.Reachable(c.Owner)
	}
	if c.Kind == store.IdentityRemoved {
		n.router.Forget(c.Owner)
		n.mail.forget(c.Owner)
		n.d.server.EndListeners(c.Owner)
	}
	uid, ok := n.roster.Owner(c.Owner)
	kind := eventKinds[c.Kind]
	if !ok || kind == "" {
		return
	}
	e := api.Event{Kind: kind, Identity: c.Owner.String(), Contact: c.Name, Protocol: c.Protocol, Text: eventTexts[c.Kind] + c.Name}
	if kind == api.EventIdentityChanged {
		e.Contact = "" // the name is the identity's
	}
	if c.Protocol != "" {
		e.Text += " " + c.Protocol
	}
	n.d.hub.Publish(e, uid)
}

// cuts are the changes that end what goes out to the other side too.
var cuts = map[store.ChangeKind]bool{store.ContactRemoved: true, store.ContactBlocked: true, store.IdentityRemoved: true}

var eventKinds = map[store.ChangeKind]string{
	store.IdentityAdded: api.EventIdentityChanged, store.IdentityRenamed: api.EventIdentityChanged,
	store.IdentityOnline: api.EventIdentityChanged, store.IdentityOffline: api.EventIdentityChanged,
	store.ContactAdded: api.EventContactAdded, store.ContactRemoved: api.EventContactRemoved,
	store.ContactRenamed: api.EventContactRenamed, store.ContactBlocked: api.EventContactBlocked,
	store.ContactUnblocked: api.EventContactUnblocked,
	store.GrantAdded:       api.EventGrantChanged, store.GrantRemoved: api.EventGrantChanged,
}

var eventTexts = map[store.ChangeKind]string{
	store.IdentityAdded: "new identity ", store.IdentityRenamed: "identity renamed to ",
	store.IdentityOnline: "identity is online: ", store.IdentityOffline: "identity is offline: ",
	store.ContactAdded: "new contact ", store.ContactRemoved: "contact removed: ",
	store.ContactRenamed: "contact renamed to ", store.ContactBlocked: "contact blocked: ",
	store.ContactUnblocked: "contact unblocked: ",
	store.GrantAdded:       "granted to ", store.GrantRemoved: "grant removed from ",
}

// peerEvent tells those who have a contact at a node that it came or went, but for
// those they blocked.
func (n *node) peerEvent(e p2p.Event) {
	select {
	case <-n.ready:
	default:
		return // so early that nobody subscribed yet
	}
	n.mail.saw(e.Node)
	kind, text := api.EventPeerConnected, "connected, "+e.Path
	if e.Kind == p2p.EventDisconnected {
		kind, text = api.EventPeerDisconnected, "disconnected"
		n.reach.disconnected(e.Node)
	} else {
		n.reach.connected(e.Node)
		n.mail.connected(e.Node)
	}
	n.d.log.Debug("peer "+e.Kind, "peer", e.Node.String(), "path", e.Path, "address", e.Addr)
	for _, own := range n.roster.All() {
		for _, c := range n.store.ContactsAt(own.ID, e.Node) {
			if c.Blocked {
				continue
			}
			n.d.hub.Publish(api.Event{Kind: kind, Identity: own.ID.String(), Contact: c.Name, Node: e.Node.String(),
				Text: c.Name + " " + text}, own.UID)
		}
	}
}
