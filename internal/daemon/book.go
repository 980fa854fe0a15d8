package daemon

import (
	"context"
	"sync"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// latelyMost bounds the nodes whose addresses are kept in memory though nobody
// here has a contact there yet.
const latelyMost = 1024

// book is where nodes live, as p2p and remote ask. What a node tells of itself
// comes before it is known to hold a contact (a ticket is redeemed over its
// first connection), so it is kept in memory until then.
type book struct {
	n *node

	mu     sync.Mutex
	lately map[identity.ID][]string
	order  []identity.ID // the oldest first
}

func newBook(n *node) *book { return &book{n: n, lately: make(map[identity.ID][]string)} }

// Addresses implements p2p.AddressBook.
func (b *book) Addresses(node identity.ID) []string {
	return append(b.n.remote.Hints(node), b.n.store.Addresses(node)...)
}

// Learned implements p2p.AddressBook.
func (b *book) Learned(node identity.ID, addrs []string) {
	b.remember(node, addrs)
	b.keep(context.Background(), node)
}

func (b *book) remember(node identity.ID, addrs []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.lately[node]; !ok {
		if len(b.order) == latelyMost {
			delete(b.lately, b.order[0])
			b.order = b.order[1:]
		}
		b.order = append(b.order, node)
	}
	b.lately[node] = addrs
}

// keep writes what a node told of itself to the store, if a contact lives there.
func (b *book) keep(ctx context.Context, node identity.ID) {
	b.mu.Lock()
	addrs := b.lately[node]
	b.mu.Unlock()
	if len(addrs) == 0 || !b.n.store.NodeKnown(node) {
		return
	}
	if err := b.n.store.SetAddresses(ctx, node, addrs); err != nil {
		b.n.d.log.Warn("cannot keep a node's addresses", "peer", node.String(), "error", err)
	}
}

// Delegations implements remote.Book.
func (b *book) Delegations(owner, id identity.ID) []*identity.Delegation {
	return b.n.store.Delegations(owner, id)
}

// Nodes implements remote.Book.
func (b *book) Nodes(owner, id identity.ID) []identity.ID { return b.n.store.Nodes(owner, id) }

// PutDelegation implements remote.Book.
func (b *book) PutDelegation(ctx context.Context, owner identity.ID, d *identity.Delegation) error {
	if err := b.n.store.PutDelegation(ctx, owner, d); err != nil {
		return err
	}
	b.keep(ctx, d.Node)
	b.n.reach.changed(owner)
	return nil
}
