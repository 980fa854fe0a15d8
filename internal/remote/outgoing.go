package remote

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// Serve carries r to a node of r.To: those that r.From knows are tried in turn
// until one is sent r. One that does not prove first that it speaks for r.To was
// sent nothing of r, so the next may do. It is the handler "another node".
func (m *Remote) Serve(ctx context.Context, r *router.Request) (json.RawMessage, error) {
	var data []byte
	err := m.eachNode(ctx, r.From, r.To, func(own *identity.Delegation, c candidate) (err error) {
		data, err = m.try(ctx, r, own, c)
		return err
	})
	return data, err
}

// eachNode has send try the nodes of to that from knows in turn, until one gives
// another answer than CodePeerUnreachable.
func (m *Remote) eachNode(ctx context.Context, from, to identity.ID, send func(own *identity.Delegation, c candidate) error) error {
	own, nodes, err := m.ends(from, to)
	if err != nil {
		return err
	}
	var failed error // what a node said is told rather than that another is not there
	for _, c := range nodes {
		err = nil
		if c.held == nil {
			c.held, err = m.whois(ctx, own, to, c.node)
		}
		if err == nil {
			if err = send(own, c); api.CodeOf(err) != api.CodePeerUnreachable {
				return err
			}
		}
		if failed == nil || api.CodeOf(failed) == api.CodePeerUnreachable {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

// ends gives the proof of who sends, and the nodes to send to, at least one.
func (m *Remote) ends(from, to identity.ID) (own *identity.Delegation, nodes []candidate, err error) {
	if own, err = m.Delegator.Delegation(from); err != nil {
		return nil, nil, err
	}
	if nodes = m.candidates(from, to); len(nodes) == 0 {
		return nil, nil, api.Errorf(api.CodePeerUnreachable, "peer not reachable: no address of %s is known", to.Short()).
			WithHint(`ask the peer for a ticket, made there with fastn invite, then "fastn contact add NAME TICKET"`)
	}
	return own, nodes, nil
}

// try sends r to a node that speaks for r.To. CodePeerUnreachable if nothing of
// it was sent.
func (m *Remote) try(ctx context.Context, r *router.Request, own *identity.Delegation, c candidate) ([]byte, error) {
	f := &wire.Frame{Body: &wire.Frame_Open{Open: &wire.Open{
		From: own.Raw, To: r.To[:], Protocol: r.Protocol, Instance: r.Instance,
		Kind: kinds[r.Kind], Trace: r.Trace, HaveIssuedUs: c.held.Issued.UnixMicro(),
	}}}
	open := f.GetOpen()
	open.TimeoutMs = millisLeft(ctx, r.Timeout)
	if r.Kind == router.Stream {
		return nil, m.stream(ctx, r, c.node, f)
	}
	reply, data, err := m.transport.Request(ctx, c.node, f, r.Payload)
	if err != nil {
		return nil, err
	}
	if err := m.replied(ctx, r.From, reply, c.node, r.To); err != nil {
		return nil, err
	}
	return data, checkJSON(data)
}

// millisLeft is what remains until the deadline of ctx, of which a node that was
// tried before may have taken some; without one it is allowed. 0 is no limit.
func millisLeft(ctx context.Context, allowed time.Duration) uint32 {
	if deadline, ok := ctx.Deadline(); ok {
		allowed = min(max(time.Until(deadline), time.Millisecond), api.MaxTimeout)
	}
	if allowed <= 0 {
		return 0
	}
	return uint32(max(1, allowed/time.Millisecond))
}

var kinds = map[router.Kind]wire.Kind{
	router.Call: wire.Kind_KIND_CALL, router.Stream: wire.Kind_KIND_STREAM,
}

func (m *Remote) stream(ctx context.Context, r *router.Request, node identity.ID, f *wire.Frame) error {
	openCtx, cancel := ctx, context.CancelFunc(func() {})
	if r.Timeout > 0 {
		openCtx, cancel = context.WithTimeout(ctx, r.Timeout)
	}
	far, reply, _, err := m.transport.OpenStream(openCtx, node, f, r.Payload)
	cancel()
	if err != nil {
		return err
	}
	if err := m.replied(ctx, r.From, reply, node, r.To); err != nil {
		if far != nil {
			far.Reset(api.CodeAborted)
			_ = far.Close()
		}
		return err
	}
	if far == nil {
		return api.Errorf(api.CodeInternal, "the peer opened no stream")
	}
	near, err := r.Accept()
	if err != nil {
		far.Reset(api.CodeCancelled)
		_ = far.Close()
		return err
	}
	return router.Splice(ctx, near, far)
}

// whois asks node for its delegation of to. Nothing that has an outcome is sent,
// so the error never says that one is not known. It is a *router.Said if node said
// it.
func (m *Remote) whois(ctx context.Context, own *identity.Delegation, to, node identity.ID) (*identity.Delegation, error) {
	f := &wire.Frame{Body: &wire.Frame_Whois{Whois: &wire.Whois{From: own.Raw, To: to[:]}}}
	reply, _, err := m.transport.Request(ctx, node, f, nil)
	if err == nil {
		err = said(m.outcome(reply, node, to))
	}
	switch {
	case api.CodeOf(err) == api.CodeOutcomeUnknown:
		return nil, api.Errorf(api.CodePeerUnreachable, "peer not reachable: node %s broke off before it was sent the request", node.Short())
	case err != nil:
		return nil, err
	}
	return m.received(ctx, own.Identity, reply.GetDelegation(), node, to)
}

// replied reads the outcome of what from sent, and keeps the delegation that the
// reply may carry.
func (m *Remote) replied(ctx context.Context, from identity.ID, reply *wire.Reply, node, to identity.ID) error {
	if raw := reply.GetDelegation(); len(raw) > 0 {
		// One that does not check out is ignored: the held one was good enough.
		_, _ = m.received(ctx, from, raw, node, to)
	}
	return m.outcome(reply, node, to)
}

// outcome is the error that node's reply tells in the name of to, nil if it is none.
func (m *Remote) outcome(reply *wire.Reply, node, to identity.ID) error {
	if us := reply.GetReceiverTimeUs(); us != 0 && reply.GetCode() == string(api.CodeClockSkew) {
		m.skewed(node, time.UnixMicro(us))
	}
	return words(replyError(reply), to)
}

// words marks an error as the words of who's side: a peer may write anything there.
// What this daemon would say just so needs no mark.
func words(err error, who identity.ID) error {
	e, ok := errors.AsType[*api.Error](err)
	if ok && !api.IsRefusal(e) && *e != *router.NoAnswer() {
		e.Peer = who.String()
	}
	return err
}

// said marks an error as the word of the node that was asked.
func said(err error) error {
	if err == nil {
		return nil
	}
	return &router.Said{Err: err}
}

// received checks a delegation of to that node sent. Its errors are our own word.
func (m *Remote) received(ctx context.Context, owner identity.ID, raw []byte, node, to identity.ID) (*identity.Delegation, error) {
	d, err := m.Verifier.Verify(raw, node, m.Now())
	if err != nil {
		if skew, ok := errors.AsType[*identity.TimeError](err); ok {
			m.skewed(node, nearest(skew))
			return nil, api.Errorf(api.CodeClockSkew, "the clocks of this machine and the peer's disagree: the peer's %v", err).
				WithHint("set the clock of the machine that is wrong: timedatectl set-ntp true")
		}
		return nil, api.Errorf(api.CodeRefused, "the peer's machine does not speak for %s: %v", to.Short(), err)
	}
	if d.Identity != to {
		return nil, api.Errorf(api.CodeRefused, "the peer's machine answered for another identity than %s", to.Short())
	}
	m.learn(ctx, owner, d)
	return d, nil
}

// Redeem uses a ticket for from: its inviter makes from a contact. On success
// the inviter's delegation is in the book once it is a contact of from's: see Adopt.
func (m *Remote) Redeem(ctx context.Context, from identity.ID, t *identity.Ticket, d *identity.Delegation) error {
	if d.Node == m.Node {
		return m.Gate.Redeem(ctx, t.Identity, from, t.Secret)
	}
	own, err := m.Delegator.Delegation(from)
	if err != nil {
		return err
	}
	// The secret goes to no node that its identity has revoked meanwhile.
	if d, err = m.Verifier.Verify(d.Raw, d.Node, m.Now()); err != nil {
		return api.Errorf(api.CodeExpired, "the ticket is void: its %v", err).
			WithHint("ask for a new ticket: the other side runs fastn invite")
	}
	defer m.hinted(d.Node, t.Addresses)()
	f := &wire.Frame{Body: &wire.Frame_Redeem{Redeem: &wire.Redeem{From: own.Raw, To: t.Identity[:], Secret: t.Secret[:]}}}
	reply, _, err := m.transport.Request(ctx, d.Node, f, nil)
	if api.CodeOf(err) == api.CodeOutcomeUnknown && ctx.Err() == nil {
		// A ticket that the same identity uses again is used once.
		reply, _, err = m.transport.Request(ctx, d.Node, f, nil)
	}
	if err != nil {
		return err
	}
	if err := m.replied(ctx, from, reply, d.Node, t.Identity); err != nil {
		return err
	}
	m.learn(ctx, from, d)
	return nil
}

// fromPeers are the codes that a peer may tell; others would be taken for
// something that happened on this machine.
var fromPeers = map[api.Code]bool{
	api.CodeBadRequest: true, api.CodeNotFound: true, api.CodeConflict: true, api.CodeRefused: true,
	api.CodeProtocolUnavailable: true, api.CodeOverBudget: true, api.CodeClockSkew: true, api.CodeExpired: true,
	api.CodeTimeout: true, api.CodeCancelled: true, api.CodeStalled: true, api.CodeAborted: true,
	api.CodeOffline: true, api.CodeTooLarge: true, api.CodeUnsupported: true, api.CodeHandlerFailed: true,
	api.CodePending:        true,
	api.CodeOutcomeUnknown: true, // the program that served ended meanwhile
}

// replyError reads a reply's error, of which no code is believed that is ours to tell.
func replyError(reply *wire.Reply) error {
	return believed(reply.Err())
}

func believed(err error) error {
	if e, ok := errors.AsType[*api.Error](err); ok && !fromPeers[e.Code] {
		e.Code = api.CodeHandlerFailed
	}
	return err
}

// checkJSON refuses an answer that would break the line it is put into.
func checkJSON(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if err := api.Scan(data); err != nil {
		return api.Errorf(api.CodeHandlerFailed, "the peer's answer is not valid JSON: %v", err)
	}
	return nil
}
