package remote

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// ServeFrame answers one frame that node sent from ip, and that is valid as
// p2p makes sure. accept answers an Open of a stream and returns its
// bytes; it is called at most once.
func (m *Remote) ServeFrame(ctx context.Context, node identity.ID, ip netip.Addr, f *wire.Frame, payload []byte,
	accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
	if m.Gate.Limited(identity.ID{}, node, ip) {
		return errorReply(api.Refusal()), nil
	}
	var from identity.ID
	var reply *wire.Reply
	var data []byte
	var err error
	switch body := f.Body.(type) {
	case *wire.Frame_Open:
		from, reply, data, err = m.opened(ctx, node, ip, body.Open, payload, accept)
	case *wire.Frame_Deliver:
		from, reply, err = m.delivered(ctx, node, ip, body.Deliver, payload)
	case *wire.Frame_Available:
		from, reply, err = m.available(ctx, node, ip, body.Available)
	case *wire.Frame_Whois:
		from, reply, err = m.asked(ctx, node, ip, body.Whois)
	case *wire.Frame_Redeem:
		from, reply, err = m.redeemed(ctx, node, ip, body.Redeem)
	default:
		err = api.Errorf(api.CodeUnsupported, "unknown kind of frame")
	}
	if err != nil {
		skewed := wasSkewed(from, err)
		if api.CodeOf(err) == api.CodeRefused || skewed && !m.known(node) {
			m.Gate.Refused(from, node, ip)
		}
		delegation := reply.GetDelegation()
		reply = errorReply(err)
		reply.Delegation = delegation
		if skewed {
			reply.ReceiverTimeUs = m.Now().UnixMicro()
		}
		return reply, nil
	}
	return reply, data
}

// wasSkewed tells that err refuses the sender's delegation for its times, which
// no program here said. Each costs a check of a signature: what is refused is
// not remembered.
func wasSkewed(from identity.ID, err error) bool {
	return from.IsZero() && api.CodeOf(err) == api.CodeClockSkew
}

// sender proves who sent a frame meant for to, which remembers it if it may use
// anything there. The error is what the node is told.
func (m *Remote) sender(ctx context.Context, raw []byte, to, node identity.ID, ip netip.Addr) (identity.ID, error) {
	now := m.Now()
	d, err := m.Verifier.Verify(raw, node, now)
	var skew *identity.TimeError
	switch {
	case errors.As(err, &skew):
		if m.known(node) {
			m.skewed(node, nearest(skew))
		}
		return identity.ID{}, wrongTime(now)
	case err != nil:
		return identity.ID{}, api.Refusal()
	}
	if m.Gate.Limited(d.Identity, node, ip) {
		return d.Identity, api.Refusal()
	}
	// Nothing is done for a stranger: it would tell by its time that to is here.
	if m.Gate.MayWhois(to, d.Identity) {
		if _, err := m.Delegator.Delegation(to); err == nil { // it can answer
			m.learn(ctx, to, d)
		}
	}
	return d.Identity, nil
}

// nearest is how far the sender's clock is off at least: it is not before what it
// issued, nor after the end of what it still sends.
func nearest(e *identity.TimeError) time.Time {
	if errors.Is(e, identity.ErrFuture) {
		return e.Issued
	}
	return e.Expires
}

func (m *Remote) opened(ctx context.Context, node identity.ID, ip netip.Addr, o *wire.Open, payload []byte,
	accept func(*wire.Reply) (router.Conn, error)) (from identity.ID, reply *wire.Reply, data []byte, err error) {
	to := identity.ID(o.GetTo())
	if from, err = m.sender(ctx, o.GetFrom(), to, node, ip); err != nil {
		return from, nil, nil, err
	}
	r := &router.Request{From: from, To: to, Protocol: o.GetProtocol(), Instance: o.GetInstance(),
		Payload: payload, Trace: o.GetTrace(), Node: node}
	if err := m.check(r, o); err != nil {
		return from, nil, nil, err
	}
	fresh := func() []byte { return m.fresh(to, o.GetHaveIssuedUs()) }
	if r.Kind == router.Stream {
		r.Accept = func() (router.Conn, error) { return accept(&wire.Reply{Delegation: fresh()}) }
	} else {
		r.Timeout = min(time.Duration(o.GetTimeoutMs())*time.Millisecond, api.MaxTimeout)
		if r.Timeout == 0 { // the peer names none
			r.Timeout = api.DefaultTimeout
		}
		if limit, ok := ctx.Deadline(); !ok || time.Until(limit) > r.Timeout { // else it is in force
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, r.Timeout)
			defer cancel()
		}
	}
	data, err = m.route(ctx, r)
	if err == nil || knows(err) {
		reply = &wire.Reply{Delegation: fresh()}
	}
	return from, reply, data, err
}

// fresh is the delegation of to, nil if the peer has it: its was issued at have.
func (m *Remote) fresh(to identity.ID, have int64) []byte {
	d, err := m.Delegator.Delegation(to)
	if err != nil || d.Issued.UnixMicro() <= have {
		return nil
	}
	return d.Raw
}

// knows tells that an error was answered behind access, so that the sender may
// know that the identity is here.
func knows(err error) bool {
	switch api.CodeOf(err) {
	case api.CodeRefused, api.CodeClockSkew:
		return false
	}
	return true
}

// check completes r from o. Names are checked before access is asked, so that
// nothing a stranger wrote is compared, kept or logged unless it is a name.
func (m *Remote) check(r *router.Request, o *wire.Open) error {
	switch o.GetKind() {
	case wire.Kind_KIND_CALL:
		r.Kind = router.Call
	case wire.Kind_KIND_STREAM:
		r.Kind = router.Stream
	default:
		return api.Refusal()
	}
	if api.ValidProtocol(r.Protocol) != nil || r.Instance != "" && api.ValidName("instance", r.Instance) != nil {
		return api.Refusal()
	}
	if len(r.Payload) > 0 && api.Scan(r.Payload) != nil {
		return api.Refusal()
	}
	return nil
}

func (m *Remote) asked(ctx context.Context, node identity.ID, ip netip.Addr, w *wire.Whois) (identity.ID, *wire.Reply, error) {
	to := identity.ID(w.GetTo())
	from, err := m.sender(ctx, w.GetFrom(), to, node, ip)
	if err != nil {
		return from, nil, err
	}
	if !m.Gate.MayWhois(to, from) {
		return from, nil, api.Refusal()
	}
	d, err := m.Delegator.Delegation(to)
	if err != nil {
		return from, nil, api.Refusal()
	}
	return from, &wire.Reply{Delegation: d.Raw}, nil
}

func (m *Remote) redeemed(ctx context.Context, node identity.ID, ip netip.Addr, w *wire.Redeem) (identity.ID, *wire.Reply, error) {
	to := identity.ID(w.GetTo())
	from, err := m.sender(ctx, w.GetFrom(), to, node, ip)
	if err != nil {
		return from, nil, err
	}
	if err := m.Gate.Redeem(ctx, to, from, identity.Secret(w.GetSecret())); err != nil {
		return from, nil, err
	}
	if d, err := m.Verifier.Verify(w.GetFrom(), node, m.Now()); err == nil { // the sender was a stranger before
		m.learn(ctx, to, d)
	}
	if err := m.Adopt(ctx, to, from); err != nil {
		return from, nil, err
	}
	d, err := m.Delegator.Delegation(to)
	if err != nil {
		return from, nil, err
	}
	return from, &wire.Reply{Delegation: d.Raw}, nil
}

func errorReply(err error) *wire.Reply { return wire.ReplyError(outward(err)) }

// outward is what the peer is told of err: nothing of this machine's inside.
func outward(err error) error {
	if err == nil {
		return nil
	}
	e := api.AsError(err)
	switch e.Code {
	case api.CodeInternal, api.CodeStorage, api.CodeLocked, api.CodeNotPermitted:
		return api.Errorf(api.CodeHandlerFailed, "the peer's machine could not do it")
	}
	return e
}
