package remote

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"runtime"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// Post is where mail from other nodes goes.
type Post interface {
	router.Mailbox
	// Available tells that to takes from's mail for protocol now: it is a hint.
	Available(from, to identity.ID, protocol, instance string)
}

// ConnectPost plugs in where mail goes. It is called once, before any traffic.
func (m *Remote) ConnectPost(p Post) { m.post = p }

// A frame with no more than this is no work worth a rest.
const (
	fewLetters = 8
	fewBytes   = 32 << 10
)

// deliverTimeout bounds a Deliver of a peer that names no time.
const deliverTimeout = time.Minute

// Deliver carries mail to a node of its receiver: it is the mailbox "another
// node". Who moved has left a node that refuses all, so a refusal has the next node
// tried, and is the answer, a *router.Said, only if all nodes said so.
func (m *Remote) Deliver(ctx context.Context, mail *router.Mail) ([]error, error) {
	own, nodes, err := m.ends(mail.From, mail.To)
	if err != nil {
		return nil, err
	}
	d, payload := frame(mail)
	d.From = own.Raw
	var waits, refused error
	for _, c := range nodes {
		out, sent, err := m.deliverTo(ctx, mail, c, own, d, payload)
		_, word := errors.AsType[*router.Said](err)
		switch {
		case err == nil:
			return out, nil
		case word && api.CodeOf(err) == api.CodeRefused:
			refused = err
		case sent && api.CodeOf(err) != api.CodePeerUnreachable:
			return nil, err
		case waits == nil || api.CodeOf(waits) == api.CodePeerUnreachable:
			waits = err // what a node said is told rather than that another is not there
		}
		if ctx.Err() != nil {
			return nil, cmp.Or(waits, error(router.Ended(ctx))) // the others were not asked
		}
	}
	if waits != nil {
		return nil, waits
	}
	return nil, refused
}

// frame is mail as it is sent, but for what depends on the node.
func frame(mail *router.Mail) (d *wire.Deliver, payload []byte) {
	d = &wire.Deliver{To: mail.To[:], Protocol: mail.Protocol, Instance: mail.Instance}
	for _, l := range mail.Letters {
		d.Letters = append(d.Letters, &wire.Letter{Id: l.ID, CreatedUs: l.Created.UnixMicro(), Size: uint32(len(l.Data))})
		payload = append(payload, l.Data...)
	}
	return d, payload
}

// deliverTo sends mail to one node, once it has proven that it speaks for the
// receiver: then it is sent.
func (m *Remote) deliverTo(ctx context.Context, mail *router.Mail, c candidate, own *identity.Delegation, d *wire.Deliver, payload []byte) (out []error, sent bool, err error) {
	if c.held == nil {
		if c.held, err = m.whois(ctx, own, mail.To, c.node); err != nil {
			return nil, false, err
		}
	}
	d.HaveIssuedUs, d.TimeoutMs = c.held.Issued.UnixMicro(), millisLeft(ctx, 0)
	out, err = m.send(ctx, mail, c.node, d, payload)
	return out, true, err
}

// send sends mail to one node.
func (m *Remote) send(ctx context.Context, mail *router.Mail, node identity.ID, d *wire.Deliver, payload []byte) ([]error, error) {
	reply, _, err := m.transport.Request(ctx, node, &wire.Frame{Body: &wire.Frame_Deliver{Deliver: d}}, payload)
	if err != nil {
		return nil, err
	}
	if err := m.replied(ctx, mail.From, reply, node, mail.To); err != nil {
		return nil, said(err)
	}
	if len(reply.GetOutcomes()) != len(mail.Letters) {
		return nil, api.Errorf(api.CodeHandlerFailed, "the peer answered %d of %d messages", len(reply.GetOutcomes()), len(mail.Letters))
	}
	out := make([]error, len(mail.Letters))
	for i, o := range reply.GetOutcomes() {
		out[i] = believed(o.Err())
	}
	return out, nil
}

// Announce tells a node of to that owner takes its mail for protocol now.
func (m *Remote) Announce(ctx context.Context, owner, to identity.ID, protocol, instance string) error {
	return m.eachNode(ctx, owner, to, func(own *identity.Delegation, c candidate) error {
		reply, _, err := m.transport.Request(ctx, c.node, &wire.Frame{Body: &wire.Frame_Available{Available: &wire.Available{
			From: own.Raw, To: to[:], Protocol: protocol, Instance: instance}}}, nil)
		if err != nil {
			return err
		}
		return m.replied(ctx, owner, reply, c.node, to)
	})
}

// delivered takes mail that a node sent.
func (m *Remote) delivered(ctx context.Context, node identity.ID, ip netip.Addr, d *wire.Deliver, payload []byte) (identity.ID, *wire.Reply, error) {
	to := identity.ID(d.GetTo())
	from, err := m.sender(ctx, d.GetFrom(), to, node, ip)
	if err == nil && m.post == nil {
		err = api.Refusal()
	}
	if err != nil {
		return from, nil, err
	}
	leave, err := m.turns.take(ctx, from)
	if err != nil {
		return from, nil, err
	}
	defer func() { leave(len(d.GetLetters()) > fewLetters || len(payload) > fewBytes) }()
	mail := &router.Mail{From: from, To: to, Protocol: d.GetProtocol(), Instance: d.GetInstance(), Node: node}
	bad, err := letters(mail, d, payload)
	if err != nil {
		return from, nil, err
	}
	timeout := deliverTimeout
	if ms := d.GetTimeoutMs(); ms > 0 {
		timeout = min(time.Duration(ms)*time.Millisecond, api.MaxTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	outcomes, err := m.post.Deliver(ctx, mail)
	var reply *wire.Reply
	if err == nil || knows(err) {
		reply = &wire.Reply{Delegation: m.fresh(to, d.GetHaveIssuedUs())}
	}
	if err == nil {
		reply.Outcomes = outcomesOf(len(d.GetLetters()), bad, outcomes)
	}
	return from, reply, err
}

// outcomesOf gives the answers to n letters: those to bad ones by their places, and
// the others in between.
func outcomesOf(n int, bad map[int]error, others []error) (list []*wire.Outcome) {
	for i := range n {
		one, ok := bad[i]
		if !ok && len(others) == 0 {
			return list // too few: it passes for no answer
		}
		if !ok {
			one, others = others[0], others[1:]
		}
		list = append(list, wire.NewOutcome(outward(one)))
	}
	return list
}

// letters puts the letters of d into mail, but for bad ones: their answers are given
// by their places, for who may know. What is not a name, an id or JSON is refused
// before anything of it is compared, kept or logged.
func letters(mail *router.Mail, d *wire.Deliver, payload []byte) (bad map[int]error, err error) {
	if api.ValidProtocol(mail.Protocol) != nil || mail.Instance != "" && api.ValidName("instance", mail.Instance) != nil {
		return nil, api.Refusal()
	}
	for i, l := range d.GetLetters() {
		if i%8 == 7 {
			runtime.Gosched() // nobody waits for the whole frame
		}
		data := payload[:l.GetSize():l.GetSize()]
		payload = payload[l.GetSize():]
		if !api.ValidUUID(l.GetId()) || len(data) > 0 && api.Scan(data) != nil {
			if bad == nil {
				bad = make(map[int]error)
			}
			bad[i] = api.Errorf(api.CodeBadRequest, "the message's id is no UUID, or its data no JSON")
			continue
		}
		mail.Letters = append(mail.Letters, router.Letter{ID: l.GetId(), Created: time.UnixMicro(l.GetCreatedUs()), Data: data})
	}
	return bad, nil
}

// available is told to those whose mail waits; anybody may say it, and what it
// costs is one try.
func (m *Remote) available(ctx context.Context, node identity.ID, ip netip.Addr, a *wire.Available) (identity.ID, *wire.Reply, error) {
	to := identity.ID(a.GetTo())
	from, err := m.sender(ctx, a.GetFrom(), to, node, ip)
	if err != nil {
		return from, nil, err
	}
	if m.post == nil || !m.Gate.MayWhois(to, from) {
		return from, nil, api.Refusal()
	}
	m.post.Available(from, to, a.GetProtocol(), a.GetInstance())
	return from, &wire.Reply{}, nil
}
