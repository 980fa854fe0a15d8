package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// addressesKey is where the store keeps under which addresses peers know this
// node, as far as they were told.
const addressesKey = "p2p.addresses"

// addressesChanged is told by p2p, of links too; the kept ones are still those of
// before.
func (n *node) addressesChanged() {
	select {
	case <-n.ready:
	case <-n.closing:
		return
	}
	n.mail.courier.Moved()
	if err := n.keepAddresses(context.Background()); err != nil {
		n.d.log.Warn("cannot note which addresses peers know", "error", err)
	}
}

// keepAddresses remembers the addresses of this moment, and has contacts told if
// one that they may know is gone.
func (n *node) keepAddresses(ctx context.Context) error {
	n.keeping.Lock()
	defer n.keeping.Unlock()
	var now []string
	for _, a := range n.host.Addrs() {
		a, _, _ = strings.Cut(a, "/p2p/")
		now = append(now, a)
	}
	slices.Sort(now)
	text, _ := n.store.Meta(addressesKey)
	kept := strings.Fields(text)
	if slices.Equal(kept, now) {
		return nil
	}
	// Else peers find this node where they did before. Who is to be told is kept first:
	// at an end in between it is found out once more.
	if slices.ContainsFunc(kept, func(a string) bool { return !slices.Contains(now, a) }) {
		if err := n.reach.moved(ctx); err != nil {
			return err
		}
	}
	if err := n.store.SetMeta(ctx, addressesKey, strings.Join(now, " ")); err != nil {
		return fmt.Errorf("keep the addresses: %w", err)
	}
	return nil
}
