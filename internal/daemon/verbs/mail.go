package verbs

import (
	"context"
	"slices"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/internal/roster"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	defaultPage = 100
	longestPage = 1000
	// pageBytes bounds the data on a page, so that the answer is a line.
	pageBytes = 512 << 10
	// pageLine bounds all that stands on a page of several messages, and shownBytes
	// what stands around the texts of one: keys, ids, times.
	pageLine   = api.MaxLine - 8<<10
	shownBytes = 640
)

// lengthOut is at least how long m is in JSON. An escape is twice as long as what it
// stands for: no text of these has control characters.
func lengthOut(m *api.OutboxMessage) int {
	return shownBytes + 2*(len(m.Reason)+len(m.Code)+len(m.Contact)+len(m.Protocol)+len(m.Instance)) + len(m.Data)
}

// lengthIn is the same for m.
func lengthIn(m *api.InboxMessage) int {
	return shownBytes + 2*(len(m.Contact)+len(m.Protocol)+len(m.Instance)) + len(m.Data)
}

// send queues a message; the whole request counts, not only its data.
func (v *Verbs) send(c call, r *api.Request) (any, error) {
	own, err := v.own(c)
	if err != nil {
		return nil, err
	}
	if err := own.Usable(); err != nil {
		return nil, err
	}
	m := messages.Message{ID: r.MessageID, From: own.ID, Protocol: r.Protocol, Instance: api.Instance(r.Instance), Data: r.Data, Created: v.Now()}
	if m.To, err = v.Target(own.ID, r.Target); err != nil {
		return nil, err
	}
	if m.ID == "" {
		m.ID = api.NewUUID()
	}
	life := api.DefaultMessageLife
	if r.ExpiresS > 0 {
		life = time.Duration(min(r.ExpiresS, int64(api.MaxMessageLife/time.Second))) * time.Second
	}
	m.Expires = m.Created.Add(life)
	if slices.Contains(v.Builtin, m.Protocol) && m.Instance == api.DefaultInstance {
		return nil, api.Errorf(api.CodeBadRequest, "%s answers calls and takes no messages", m.Protocol).
			WithHint(`"fastn call %s %s" calls it; a text goes to the protocol Text`, api.ShellQuote(r.Target), api.ShellQuote(m.Protocol))
	}
	if err := v.Courier.CheckData(m.Protocol, m.Instance, m.Data); err != nil {
		return nil, err
	}
	out, err := v.Courier.Send(c.ctx, m)
	if err != nil {
		return nil, err
	}
	out = v.Courier.Latest(out)
	return api.SendResult{MessageID: out.ID, State: out.State.String()}, nil
}

func (v *Verbs) outboxList(c call, a api.OutboxListArgs) (any, error) {
	p, err := page(a.After, a.Limit)
	if err != nil {
		return nil, err
	}
	own, ok, err := v.known(c)
	if !ok {
		return api.OutboxPage{Messages: []api.OutboxMessage{}, Cursor: a.After}, err
	}
	leave, err := v.Messages.Turn(c.ctx, own.ID)
	if err != nil {
		return nil, err
	}
	defer leave()
	list, err := v.Messages.ListOut(c.ctx, own.ID, p, a.All)
	if err != nil {
		return nil, err
	}
	out := api.OutboxPage{Messages: make([]api.OutboxMessage, 0, len(list)), Cursor: a.After}
	size, line := 0, 0
	for _, m := range list {
		shown := v.sent(own, m)
		if line += lengthOut(&shown); line > pageLine && len(out.Messages) > 0 {
			out.More = true
			return out, nil
		}
		out.Cursor = m.Seq
		size += len(m.Data)
		// One that is delivered may not be recorded as such yet.
		if a.All || shown.State != api.StateDelivered {
			out.Messages = append(out.Messages, shown)
		}
	}
	if mayBeMore(p, len(list), size) {
		next, err := v.Messages.ListOut(c.ctx, own.ID, messages.Page{After: out.Cursor, Limit: 1}, a.All)
		if err != nil {
			return nil, err
		}
		out.More = len(next) > 0
	}
	return out, nil
}

// page is a list's bounds.
func page(after int64, limit int) (messages.Page, error) {
	if after < 0 || limit < 0 || limit > longestPage {
		return messages.Page{}, api.Errorf(api.CodeBadRequest, `"after" must be at least 0, and "limit" from 0 to %d; 0 is %d`, longestPage, defaultPage)
	}
	if limit == 0 {
		limit = defaultPage
	}
	return messages.Page{After: after, Limit: limit, MaxBytes: pageBytes}, nil
}

// sent shows a message of the outbox.
func (v *Verbs) sent(own roster.Resident, m messages.Outgoing) api.OutboxMessage {
	m = v.Courier.Latest(m)
	out := api.OutboxMessage{MessageID: m.ID, To: m.To.String(), Contact: v.contactName(own.ID, m.To), Protocol: m.Protocol,
		Instance: shownInstance(m.Instance), State: m.State.String(), Code: m.Code, Reason: m.Reason, Size: m.Size,
		Created: m.Created, Expires: m.Expires, Tries: m.Tries}
	if m.State == messages.Queued && !m.NextTry.IsZero() {
		out.NextTry = &m.NextTry
	}
	if m.State != messages.Queued && !m.Done.IsZero() {
		out.Done = &m.Done
	}
	if lengthOut(&out)+len(m.Data) <= pageLine {
		out.Data = m.Data
	}
	return out
}

func shownInstance(instance string) string {
	if instance == api.DefaultInstance {
		return ""
	}
	return instance
}

// contactName is owner's name for who, or "".
func (v *Verbs) contactName(owner, who identity.ID) string {
	if owner == who {
		return api.TargetSelf
	}
	name, _ := v.Store.Contact(owner, who)
	return name
}

// ofOutbox does one thing to one sent message.
func (v *Verbs) ofOutbox(do func(ctx context.Context, from identity.ID, id string) (messages.Outgoing, error)) func(call) (any, error) {
	return with(func(c call, a api.OutboxArgs) (any, error) {
		own, err := v.own(c)
		if err != nil {
			return nil, err
		}
		if !api.ValidUUID(a.MessageID) {
			return nil, api.Errorf(api.CodeBadRequest, `"message_id" must be a UUID, as send and outbox.list tell it`)
		}
		m, err := inEitherCase(a.MessageID, func(id string) (messages.Outgoing, error) { return do(c.ctx, own.ID, id) })
		if err != nil {
			return nil, err
		}
		return v.sent(own, m), nil
	})
}

func (v *Verbs) inboxList(c call, a api.InboxListArgs) (any, error) {
	p, err := page(a.After, a.Limit)
	if err != nil {
		return nil, err
	}
	own, ok, err := v.known(c)
	if !ok && err == nil && !a.Wait {
		return api.InboxPage{Messages: []api.InboxMessage{}, Cursor: a.After}, nil
	}
	if !ok && err == nil { // what is waited for comes to somebody
		own, err = v.own(c)
	}
	if err != nil {
		return nil, err
	}
	for {
		news := v.Courier.Arrivals(own.ID)
		out, err := v.inboxPage(c, own, a, p)
		if err != nil || len(out.Messages) > 0 || !a.Wait {
			return out, err
		}
		select {
		case <-news:
		case <-c.ctx.Done():
			return out, nil
		}
	}
}

func (v *Verbs) inboxPage(c call, own roster.Resident, a api.InboxListArgs, p messages.Page) (out api.InboxPage, err error) {
	leave, err := v.Messages.Turn(c.ctx, own.ID)
	if err != nil {
		return out, err
	}
	defer leave()
	list, err := v.Messages.ListIn(c.ctx, own.ID, p, a.Unread)
	if err != nil {
		return out, err
	}
	out = api.InboxPage{Messages: make([]api.InboxMessage, 0, len(list)), Cursor: a.After}
	size, line := 0, 0
	for _, m := range list {
		shown := v.received(own, m)
		if line += lengthIn(&shown); line > pageLine && len(out.Messages) > 0 {
			out.More = true
			return out, nil
		}
		out.Messages = append(out.Messages, shown)
		out.Cursor = m.Seq
		size += len(m.Data)
	}
	if mayBeMore(p, len(list), size) {
		next, err := v.Messages.ListIn(c.ctx, own.ID, messages.Page{After: out.Cursor, Limit: 1}, a.Unread)
		if err != nil {
			return out, err
		}
		out.More = len(next) > 0
	}
	return out, nil
}

// mayBeMore tells that its number or its bytes may have ended a page: how large
// the next message is only a look at it tells.
func mayBeMore(p messages.Page, n, size int) bool {
	return n == p.Limit || n > 0 && size+api.MaxPayload > p.MaxBytes
}

func (v *Verbs) received(own roster.Resident, m messages.Incoming) api.InboxMessage {
	return api.InboxMessage{MessageID: m.ID, From: m.From.String(), Contact: v.contactName(own.ID, m.From), Protocol: m.Protocol,
		Instance: shownInstance(m.Instance), Data: m.Data, Received: m.Received, Read: m.Read}
}

// ofInbox finds one received message and does something to it.
func (v *Verbs) ofInbox(do func(c call, own roster.Resident, m *messages.Incoming) error) func(call) (any, error) {
	return with(func(c call, a api.InboxArgs) (any, error) {
		own, err := v.own(c)
		if err != nil {
			return nil, err
		}
		if !api.ValidUUID(a.MessageID) {
			return nil, api.Errorf(api.CodeBadRequest, `"message_id" must be a UUID, as inbox.list tells it`)
		}
		sender := ""
		if a.From != "" {
			id, err := v.Target(own.ID, a.From)
			if err != nil {
				return nil, err
			}
			sender = id.String() + "/"
		}
		m, err := inEitherCase(a.MessageID, func(id string) (messages.Incoming, error) { return v.incoming(c, own.ID, sender+id) })
		if err != nil {
			return nil, err
		}
		if err := do(c, own, &m); err != nil {
			return nil, err
		}
		return v.received(own, m), nil
	})
}

// inEitherCase finds a message by its id as it is given, which may have been stored
// so before ids had one form, else by its canonical form.
func inEitherCase[T any](id string, find func(id string) (T, error)) (T, error) {
	m, err := find(id)
	if canonical := api.CanonicalUUID(id); canonical != id && api.CodeOf(err) == api.CodeNotFound {
		return find(canonical)
	}
	return m, err
}

func (v *Verbs) incoming(c call, owner identity.ID, ref string) (m messages.Incoming, err error) {
	leave, err := v.Messages.Turn(c.ctx, owner)
	if err != nil {
		return m, err
	}
	defer leave()
	return v.Messages.Incoming(c.ctx, owner, ref)
}

func (v *Verbs) inboxShow(call, roster.Resident, *messages.Incoming) error { return nil }

// inboxRead leaves a program's message as it is: who looks at it does not take
// it from the program.
func (v *Verbs) inboxRead(c call, own roster.Resident, m *messages.Incoming) error {
	if !v.Courier.TakesBuiltin(m.Protocol, m.Instance) {
		return nil
	}
	m.Read = true
	return v.Messages.MarkRead(c.ctx, own.ID, m.Seq)
}

func (v *Verbs) inboxRemove(c call, own roster.Resident, m *messages.Incoming) error {
	return v.Messages.Remove(c.ctx, own.ID, m.Seq)
}
