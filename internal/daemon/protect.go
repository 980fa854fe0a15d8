package daemon

import "github.com/fastn-stack/fastnd/internal/identity"

// movedTag marks nodes that are dialled once to be told of another port.
const movedTag = "moved"

// tellMoved connects to every node where a contact lives: Identify then tells
// it the addresses of this node.
func (n *node) tellMoved() {
	for _, id := range n.store.KnownNodes() {
		n.host.Protect(id, movedTag)
	}
}

// keepReachable keeps the nodes of owner's contacts connected while a program
// serves a protocol of owner's, so that they reach it through a NAT too.
func (n *node) keepReachable(owner identity.ID, service string) (release func()) {
	tag := "serves " + owner.String() + " " + service
	var nodes []identity.ID
	for _, c := range n.store.Contacts(owner) {
		if c.Blocked {
			continue
		}
		for _, id := range n.store.Nodes(owner, c.ID) {
			if id != n.host.Node() {
				nodes = append(nodes, id)
				n.host.Protect(id, tag)
			}
		}
	}
	return func() {
		for _, id := range nodes {
			n.host.Unprotect(id, tag)
		}
	}
}
