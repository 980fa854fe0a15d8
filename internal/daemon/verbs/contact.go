package verbs

import (
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/roster"
	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	defaultInvite = 24 * time.Hour
	longestInvite = 30 * 24 * time.Hour
)

func (v *Verbs) contactInvite(c call, a api.InviteArgs) (any, error) {
	own, err := v.own(c)
	if err != nil {
		return nil, err
	}
	life := defaultInvite
	if a.Expires != 0 {
		if a.Expires < 0 || a.Expires > int64(longestInvite/time.Second) {
			return nil, api.Errorf(api.CodeBadRequest, `"expires_s" must be from 1 to %d, 30 days`, int64(longestInvite/time.Second))
		}
		life = time.Duration(a.Expires) * time.Second
	}
	if a.For != "" {
		if err := v.nameFree(own, a.For); err != nil {
			return nil, err
		}
	}
	key, err := v.Roster.Key(own.ID)
	if err != nil {
		return nil, err
	}
	// Stored first: a delegation issued from now on outlives the ticket.
	secret, expires := identity.NewSecret(), v.Now().Add(life)
	if err := v.Store.AddInvite(c.ctx, own.ID, sha256.Sum256(secret[:]), a.For, expires); err != nil {
		return nil, err
	}
	d, err := v.Roster.Issue(own.ID, life)
	if err != nil {
		return nil, err
	}
	// Of an address, a ticket says only how to reach the node that it names.
	addrs := bare(v.Host.Addrs())
	t := identity.Ticket{Identity: own.ID, Delegation: d.Raw, Addresses: addrs[:min(len(addrs), identity.MaxTicketAddresses)],
		Expires: expires, Secret: secret}
	text, err := t.Seal(key)
	if err != nil {
		return nil, err
	}
	out := api.Invitation{Ticket: text, Identity: own.ID.String(), Expires: t.Expires, Addresses: t.Addresses, Public: anyPublic(t.Addresses)}
	switch {
	case !own.Online:
		out.Warning = "identity " + own.Name + ` is offline: nobody can use the ticket before "fastn id online ` + api.ShellQuote(own.Name) + `"`
	case !out.Public:
		out.Warning = "no address in the ticket is public: it works only for machines that can reach this one directly, " +
			"as in the same network; behind a router with a fixed address set p2p.announce in fastn.toml"
	}
	return out, nil
}

// nameFree tells whether a contact can get that name: asked before a ticket is
// used, since the inviter does not take its side back.
func (v *Verbs) nameFree(own roster.Resident, name string) error {
	if err := api.ValidName("the contact's name", name); err != nil {
		return err
	}
	_, err := identity.ParseID(name)
	if err == nil || name == api.TargetSelf || name == api.WhoContacts || name == api.WhoAnyone {
		return api.Errorf(api.CodeBadRequest, "%q cannot be the name of a contact: it has a meaning of its own", name).
			WithHint("choose another name")
	}
	if c, err := v.Store.ContactByName(own.ID, name); err == nil {
		return api.Errorf(api.CodeConflict, "you have a contact named %s already: %s", name, c.ID).
			WithHint(`choose another name, or rename that one with "fastn contact rename %s NEWNAME"`, api.ShellQuote(name))
	}
	return nil
}

func (v *Verbs) contactAdd(c call, a api.ContactAddArgs) (any, error) {
	own, err := v.own(c)
	if err != nil {
		return nil, err
	}
	n := store.NewContact{Owner: own.ID, Name: a.Name}
	switch {
	case (a.Ticket == "") == (a.ID == ""):
		return nil, api.Errorf(api.CodeBadRequest, `contact.add needs either "ticket" or "id"`)
	case a.Ticket != "":
		if a.Address != "" {
			return nil, api.Errorf(api.CodeBadRequest, `"address" goes with "id": a ticket has addresses of its own`)
		}
		return v.contactByTicket(c, own, n, a.Ticket)
	}
	if n.ID, err = identity.ParseID(a.ID); err != nil {
		return nil, api.Errorf(api.CodeBadRequest, "the contact's id: %v", err).
			WithHint("ask for a ticket: the other side runs fastn invite; or for its id, which it sees with fastn id list")
	}
	if err := v.noNode(n.ID); err != nil {
		return nil, err
	}
	if a.Address != "" {
		if n.Node, n.Address, err = splitAddress(a.Address); err != nil {
			return nil, err
		}
	}
	if err := v.Store.AddContact(c.ctx, n); err != nil {
		return nil, err
	}
	if err := v.Remote.Adopt(c.ctx, own.ID, n.ID); err != nil {
		return nil, err
	}
	return v.contactNamed(own, a.Name)
}

// noNode refuses the id of this node: nobody would ever answer for it as an identity.
// Those of other nodes are not refused: which are known is told to nobody who does not
// know them himself, and anybody may name one in an address.
func (v *Verbs) noNode(id identity.ID) error {
	if id != v.Host.Node() {
		return nil
	}
	return api.Errorf(api.CodeBadRequest, "%s is the id of a node, not of an identity", id.Short()).
		WithHint(`that is this machine; "fastn id list" shows the ids of your identities`)
}

// contactByTicket redeems first: if the inviter is not reached nothing is kept.
func (v *Verbs) contactByTicket(c call, own roster.Resident, n store.NewContact, text string) (any, error) {
	t, d, err := identity.ParseTicket(text, v.Now())
	if err != nil {
		return nil, api.Errorf(api.CodeBadRequest, "%v", err).
			WithHint("ask for a new ticket: the other side runs fastn invite")
	}
	n.ID, n.Delegation, n.Addresses = t.Identity, d, t.Addresses
	old, known := v.Store.ContactInfo(own.ID, n.ID)
	// The same ticket again under the same name: the first answer may have been lost.
	again := known && old.Name == n.Name && !old.Blocked
	if !again {
		if err := v.mayAdd(own, n, old, known); err != nil {
			return nil, err
		}
	}
	if err := v.Remote.Redeem(c.ctx, own.ID, t, d); err != nil {
		return nil, err
	}
	if !again {
		if err := v.Store.AddContact(c.ctx, n); err != nil {
			return nil, err
		}
	}
	if err := v.Remote.Adopt(c.ctx, own.ID, n.ID); err != nil {
		return nil, err
	}
	return v.contactNamed(own, n.Name)
}

func (v *Verbs) mayAdd(own roster.Resident, n store.NewContact, old store.Contact, known bool) error {
	if n.ID == own.ID {
		return api.Errorf(api.CodeBadRequest, "this ticket is your own").WithHint("give it to the one you want to invite")
	}
	if known {
		return api.Errorf(api.CodeConflict, "%s is your contact %s already", n.ID.Short(), old.Name).
			WithHint(`rename it with "fastn contact rename %s %s"`, api.ShellQuote(old.Name), api.ShellQuote(n.Name))
	}
	if v.Store.Blocked(own.ID, n.ID) {
		return api.Errorf(api.CodeNotPermitted, "you blocked %s", n.ID.Short()).
			WithHint(`first "fastn contact unblock %s"`, api.ShellQuote(n.ID.String()))
	}
	return v.nameFree(own, n.Name)
}

func (v *Verbs) contactNamed(own roster.Resident, name string) (any, error) {
	c, err := v.Store.ContactByName(own.ID, name)
	if err != nil {
		return nil, err
	}
	return v.contact(c), nil
}

func (v *Verbs) contact(c store.Contact) api.Contact {
	out := api.Contact{Name: c.Name, ID52: c.ID.String(), Identity: c.Owner.String(), Blocked: c.Blocked, Added: c.Added,
		Nodes: []string{}, Addresses: []string{}}
	for _, node := range v.Store.Nodes(c.Owner, c.ID) {
		out.Nodes = append(out.Nodes, node.String())
		out.Addresses = append(out.Addresses, v.Store.AddressesFor(c.Owner, c.ID, node)...)
	}
	return out
}

func (v *Verbs) contactList(c call) (any, error) {
	out := []api.Contact{}
	own, ok, err := v.known(c)
	if !ok {
		return out, err
	}
	for _, contact := range v.Store.Contacts(own.ID) {
		out = append(out, v.contact(contact))
	}
	for _, b := range v.Store.Blocks(own.ID) {
		if b.Name == "" { // blocked without being a contact
			out = append(out, v.contact(store.Contact{Owner: own.ID, ID: b.ID, Added: b.Added, Blocked: true}))
		}
	}
	return out, nil
}

func (v *Verbs) contactRename(c call, a api.RenameArgs) (any, error) {
	own, err := v.own(c)
	if err != nil {
		return nil, err
	}
	if err := v.Store.RenameContact(c.ctx, own.ID, a.Name, a.To); err != nil {
		return nil, err
	}
	return v.contactNamed(own, a.To)
}

func (v *Verbs) contactRemove(c call, a api.NameArgs) (any, error) {
	own, err := v.own(c)
	if err != nil {
		return nil, err
	}
	return nil, v.Store.RemoveContact(c.ctx, own.ID, a.Name)
}

// contactID resolves a contact's name or an id.
func (v *Verbs) contactID(own identity.ID, nameOrID string) (identity.ID, error) {
	c, err := v.Store.ContactByName(own, nameOrID)
	if err == nil {
		return c.ID, nil
	}
	if id, idErr := identity.ParseID(nameOrID); idErr == nil {
		return id, nil
	}
	return identity.ID{}, err
}

func (v *Verbs) contactBlock(block bool) func(call, api.NameArgs) (any, error) {
	return func(c call, a api.NameArgs) (any, error) {
		own, err := v.own(c)
		if err != nil {
			return nil, err
		}
		id, err := v.contactID(own.ID, a.Name)
		if err != nil {
			return nil, err
		}
		change := v.Store.Unblock
		if block {
			change = v.Store.Block
			if id == own.ID {
				return nil, api.Errorf(api.CodeBadRequest, "an identity cannot block itself")
			}
		}
		if err := change(c.ctx, own.ID, id); err != nil {
			return nil, err
		}
		return v.contactOf(own.ID, id), nil
	}
}

// contactOf is id as own knows it, a contact or not.
func (v *Verbs) contactOf(own, id identity.ID) api.Contact {
	if c, ok := v.Store.ContactInfo(own, id); ok {
		return v.contact(c)
	}
	return v.contact(store.Contact{Owner: own, ID: id, Blocked: v.Store.Blocked(own, id)})
}

// splitAddress takes MULTIADDR/p2p/NODEID apart.
func splitAddress(s string) (node identity.ID, addr string, err error) {
	const example = "/ip4/192.0.2.1/udp/4100/quic-v1/p2p/NODEID"
	i := strings.LastIndex(s, "/p2p/")
	if i <= 0 {
		return node, "", api.Errorf(api.CodeBadRequest, "the address %q does not end in /p2p/NODEID", s).
			WithHint("an address looks like %s; the other side sees its own with fastn status", example)
	}
	if node, err = identity.ParseID(s[i+len("/p2p/"):]); err != nil {
		return node, "", api.Errorf(api.CodeBadRequest, "the address's node id: %v", err)
	}
	m, err := multiaddr.NewMultiaddr(s[:i])
	if err != nil {
		return node, "", api.Errorf(api.CodeBadRequest, "the address %q: %v", s[:i], err).
			WithHint("an address looks like %s", example)
	}
	return node, m.String(), nil
}

// bare takes /p2p/NODEID off the end of addresses.
func bare(addrs []string) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		a, _, _ = strings.Cut(a, "/p2p/")
		out = append(out, a)
	}
	return out
}

// anyPublic tells whether one of the addresses can be reached from anywhere.
func anyPublic(addrs []string) bool {
	return slices.ContainsFunc(addrs, func(s string) bool {
		m, err := multiaddr.NewMultiaddr(s)
		return err == nil && manet.IsPublicAddr(m)
	})
}
