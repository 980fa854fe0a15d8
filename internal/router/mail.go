package router

import (
	"context"
	"encoding/json"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// Mail is messages of one sender to one receiver for one protocol, in order. From
// is proven as in Request.
type Mail struct {
	From, To           identity.ID
	Protocol, Instance string
	Letters            []Letter
	// Node is the node that sent the mail; zero for this one.
	Node identity.ID
}

// Letter is one message.
type Letter struct {
	ID      string          // UUID, unique for the sender
	Created time.Time       // by the sender's clock
	Data    json.RawMessage // valid JSON or empty, at most api.MaxPayload bytes
}

// placedKey is that of WithPlaced's function.
type placedKey struct{}

// WithPlaced has placed called once the message that is sent with ctx has its place:
// what is sent from then on comes after it. It may be called more than once, or not
// at all if the message is refused; it must not wait.
func WithPlaced(ctx context.Context, placed func()) context.Context {
	return context.WithValue(ctx, placedKey{}, placed)
}

// Placed is the function of WithPlaced; if there is none, one that does nothing, and
// false.
func Placed(ctx context.Context) (placed func(), ok bool) {
	if placed, ok := ctx.Value(placedKey{}).(func()); ok {
		return placed, true
	}
	return func() {}, false
}

// Mailbox takes mail. It answers each letter after it is on the disk: nil if it
// is there, also from an earlier time. The error is of the whole mail, of which
// nothing was taken then, or it is not known what. It is a *Said if it is the
// receiver's word.
type Mailbox interface {
	Deliver(ctx context.Context, m *Mail) ([]error, error)
}

// Said is what a receiver's node answered to the whole of a mail. Any other error
// of the whole is ours, or of the way there: it tells nothing of what the receiver
// would say.
type Said struct{ Err error }

func (s *Said) Error() string { return s.Err.Error() }
func (s *Said) Unwrap() error { return s.Err }

// Inbox is the mailbox of the identities of this node.
type Inbox interface {
	Mailbox
	// TakesBuiltin tells whether every identity takes mail for protocol.
	TakesBuiltin(protocol, instance string) bool
	// Wanted notes that a contact has mail for a protocol that it may not use, or
	// that nobody serves, before it is told so: from then on it waits until it hears that
	// this has changed. It is false for who is no contact, of whom nothing is noted.
	Wanted(ctx context.Context, m *Mail) (contact bool, err error)
}

// Post gives the router its two mailboxes. Without it no mail is taken. It is
// called once, before any traffic.
func (rt *Router) Post(here Inbox, remote Mailbox) {
	rt.here, rt.elsewhere = here, remote
}

// Deliver passes m through access and to its mailbox, and returns when m is
// answered. Errors are of *api.Error, in a *Said if they are the receiver's word;
// CodePending says that a contact's mail may be sent again when the protocol is
// served and granted.
func (rt *Router) Deliver(ctx context.Context, m *Mail) ([]error, error) {
	m.Instance = api.Instance(m.Instance)
	if rt.here == nil {
		return nil, api.Errorf(api.CodeUnsupported, "messages are not taken here")
	}
	r := &Request{From: m.From, To: m.To, Protocol: m.Protocol, Instance: m.Instance, Kind: Message, Node: m.Node}
	here, online := rt.parts.Residence.Here(r.To)
	_, far, err := rt.pick(r, here, online)
	switch {
	case err == nil || waits(err):
	case far: // our own user may not send it
		return nil, err
	default:
		return nil, &Said{err}
	}
	if !r.Local() {
		release, err := rt.parts.Budget.AcquirePeer(r.To, r.From, r.Kind)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	if err != nil {
		return nil, rt.pending(ctx, m)
	}
	if far {
		return rt.elsewhere.Deliver(ctx, m)
	}
	return rt.here.Deliver(ctx, m)
}

// pending is the answer to mail that may be taken later, if it is a contact's.
// Others who may use what nobody serves are told no more than any stranger.
func (rt *Router) pending(ctx context.Context, m *Mail) error {
	contact, err := rt.here.Wanted(ctx, m)
	switch {
	case ctx.Err() != nil:
		return Ended(ctx)
	case err != nil:
		return err
	case !contact:
		return &Said{api.Refusal()}
	}
	what := api.ServiceName(m.Protocol, m.Instance)
	if m.From == m.To {
		return &Said{api.Errorf(api.CodePending, "nobody takes %s here so far", what).WithHint("it is delivered when a program does")}
	}
	return &Said{api.Errorf(api.CodePending, "%s is not taken from you so far", what).
		WithHint("it is sent when its receiver serves and grants it")}
}

// TakesMail tells whether mail of from for protocol would be taken by owner now.
func (rt *Router) TakesMail(owner, from identity.ID, protocol, instance string) bool {
	here, online := rt.parts.Residence.Here(owner)
	if rt.here == nil || !here || !online || rt.parts.Access.Incoming(owner, from, protocol, instance) != nil {
		return false
	}
	_, err := rt.handler(&Request{From: from, To: owner, Protocol: protocol, Instance: instance, Kind: Message})
	return err == nil
}

// waits tells that mail which is refused with err may be taken later: a contact's
// that was not granted, or that nobody serves.
func waits(err error) bool {
	switch api.CodeOf(err) {
	case api.CodeProtocolUnavailable:
		return true
	case api.CodeRefused:
		return !api.IsRefusal(err)
	}
	return false
}
