// Package remote is where other nodes begin: it is the handler that carries a
// request to another node, and it turns what other nodes ask into requests.
// Both ends are proven here: each Open carries its sender's delegation, and an
// Open for X goes only to a node that X has delegated to.
package remote

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// Transport carries frames between nodes. Errors are *api.Error;
// CodePeerUnreachable means that nothing was sent.
type Transport interface {
	Request(ctx context.Context, node identity.ID, f *wire.Frame, payload []byte) (*wire.Reply, []byte, error)
	// OpenStream returns a nil Conn if the reply is an error.
	OpenStream(ctx context.Context, node identity.ID, f *wire.Frame, payload []byte) (router.Conn, *wire.Reply, []byte, error)
}

// Delegator issues the delegations of this node's own identities.
type Delegator interface {
	Delegation(id identity.ID) (*identity.Delegation, error)
}

// Book is durable memory of where contacts live. All of it is owner's, an
// identity of this node: it shows nothing of what other owners know.
type Book interface {
	// Delegations returns those that owner holds of id and that have not expired,
	// newest first.
	Delegations(owner, id identity.ID) []*identity.Delegation
	// PutDelegation keeps d if its identity is a contact of owner's. It is cheap
	// if d is known.
	PutDelegation(ctx context.Context, owner identity.ID, d *identity.Delegation) error
	// Nodes returns the nodes that owner may try for id: those it knows to speak
	// for id, and those that its user named.
	Nodes(owner, id identity.ID) []identity.ID
}

// Gate is the receiving side's access.
type Gate interface {
	// MayWhois tells whether from may use any protocol of owner, which lives here.
	MayWhois(owner, from identity.ID) bool
	// Limited tells that a stranger made too many refused opens lately. It is asked
	// twice: before from is proven, then it is zero and only the node counts, and
	// after, when identity and address count too.
	Limited(from, node identity.ID, ip netip.Addr) bool
	// Refused counts a refused open, or what a stranger's node sent with a wrong
	// time. from is zero if it was not proven.
	Refused(from, node identity.ID, ip netip.Addr)
	// Redeem uses a ticket of owner for by: both in one transaction. The error
	// is what by is told.
	Redeem(ctx context.Context, owner, by identity.ID, secret identity.Secret) error
}

// Parts are what Remote stands on; all are needed but those that say otherwise.
type Parts struct {
	Node      identity.ID
	Delegator Delegator
	Book      Book
	Gate      Gate
	Verifier  *identity.Verifier
	Now       func() time.Time
	// Known tells whether a contact of anybody here, who has not blocked it, lives at
	// node; such a node's wrong clock does not count as a refused open. Nil knows none.
	Known func(node identity.ID) bool
	// OnSkew is told, for each frame that fails by it, that the clock of a node and
	// ours disagree: it is a known node, or one that was asked. theirs is what its
	// clock says, or the nearest time that it may say. Nil is told nothing.
	OnSkew func(node identity.ID, theirs time.Time)
}

func (p *Parts) known(node identity.ID) bool { return p.Known != nil && p.Known(node) }

func (p *Parts) skewed(node identity.ID, theirs time.Time) {
	if p.OnSkew != nil {
		p.OnSkew(node, theirs)
	}
}

// Remote is safe for concurrent use.
type Remote struct {
	Parts
	transport Transport
	route     func(context.Context, *router.Request) (json.RawMessage, error)
	post      Post
	turns     turns

	lately *recent

	mu    sync.Mutex
	hints []*hint
}

// hint is where a redemption under way looks for a node.
type hint struct {
	node      identity.ID
	addresses []string
}

// New returns a Remote that takes no part in traffic until Connect is called.
func New(p Parts) *Remote {
	return &Remote{Parts: p, lately: newRecent()}
}

// Connect plugs in the two ends that need a Remote to be made themselves.
// It is called once, before any traffic.
func (m *Remote) Connect(t Transport, route func(context.Context, *router.Request) (json.RawMessage, error)) {
	m.transport, m.route = t, route
}

// Hints returns the addresses a node is tried at besides those in the book.
func (m *Remote) Hints(node identity.ID) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, h := range m.hints {
		if h.node == node {
			out = append(out, h.addresses...)
		}
	}
	return out
}

// hinted has addresses of node tried until forget is called.
func (m *Remote) hinted(node identity.ID, addresses []string) (forget func()) {
	h := &hint{node, addresses}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hints = append(m.hints, h)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.hints = slices.DeleteFunc(m.hints, func(x *hint) bool { return x == h })
	}
}

// Adopt writes what owner knows of id to the book; called when id became a
// contact of owner's.
func (m *Remote) Adopt(ctx context.Context, owner, id identity.ID) error {
	for _, d := range m.lately.get(owner, id) {
		if err := m.Book.PutDelegation(ctx, owner, d); err != nil {
			return err
		}
	}
	return nil
}

// learn remembers for owner, who sent or was sent it, a delegation that was
// verified. The book is told only where that is news: this is the hot path. A
// failing disk costs one look-up later, so the error is not the caller's.
func (m *Remote) learn(ctx context.Context, owner identity.ID, d *identity.Delegation) {
	if m.lately.put(owner, d) {
		_ = m.Book.PutDelegation(ctx, owner, d)
	}
}

// candidate is a node that may speak for the target; held is nil if its
// delegation has to be asked for.
type candidate struct {
	node identity.ID
	held *identity.Delegation
}

// candidates are the nodes that from knows for to; others may know more.
func (m *Remote) candidates(from, to identity.ID) []candidate {
	out := make([]candidate, 0, 2)
	missing := func(node identity.ID) bool {
		return node != m.Node && !slices.ContainsFunc(out, func(c candidate) bool { return c.node == node })
	}
	now := m.Now()
	hold := func(d *identity.Delegation) {
		if !missing(d.Node) {
			return
		}
		// Another owner may have been sent what revokes it. The signature was
		// checked before, so this costs a hash.
		if d, err := m.Verifier.Verify(d.Raw, d.Node, now); err == nil {
			out = append(out, candidate{d.Node, d})
		}
	}
	for _, d := range m.Book.Delegations(from, to) {
		hold(d)
	}
	for _, d := range m.lately.get(from, to) {
		hold(d)
	}
	for _, node := range m.Book.Nodes(from, to) {
		if missing(node) {
			out = append(out, candidate{node, nil})
		}
	}
	return out
}

// Nodes lists the nodes that a request from one identity to the other would
// try, in that order.
func (m *Remote) Nodes(from, to identity.ID) []identity.ID {
	var out []identity.ID
	for _, c := range m.candidates(from, to) {
		out = append(out, c.node)
	}
	return out
}

// wrongTime is the answer to a delegation whose times do not fit our clock.
func wrongTime(now time.Time) *api.Error {
	return api.Errorf(api.CodeClockSkew, "the clocks disagree: it is %s on the peer's machine", now.UTC().Format(time.RFC3339)).
		WithHint("set the clock of the machine that is wrong: timedatectl set-ntp true")
}
