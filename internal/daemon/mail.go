package daemon

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/access"
	"github.com/fastn-stack/fastnd/internal/config"
	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/lru"
	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

// mail is the node's messages: their store, and the courier that runs from
// startMail until stop.
type mail struct {
	n       *node
	store   *messages.Store
	courier *messages.Courier
	check   chan struct{} // holds one if the whole file is to be checked

	mu   sync.Mutex
	seen *lru.Map[identity.ID, time.Time] // when a node was last seen, connected or leaving
}

const (
	// nearFor is how long after it was connected a peer is expected back soon.
	nearFor   = time.Hour
	seenNodes = 4096
	// checkEach is how often the whole file is read: damage that nobody meets, as it
	// hides a message, is found then.
	checkEach = 24 * time.Hour
)

// openMail opens the messages; nothing is delivered before startMail.
func (n *node) openMail(ctx context.Context) error {
	existed := n.isThere(messages.File)
	m := &mail{n: n, seen: lru.New[identity.ID, time.Time](seenNodes), check: make(chan struct{}, 1)}
	var err error
	m.store, err = messages.Open(ctx, n.d.place.dir, messages.Options{
		Now: n.d.o.clock(), Uptime: n.d.o.uptime, Limits: func() messages.Limits { return *n.d.messageLimits.Load() },
		Owner: n.roster.Owner, MaySend: (*gate)(n).Outgoing, UserName: n.d.names.get, OnAside: m.aside, OnRecovery: m.recovered,
		OnDisk: m.diskRefused, Progress: &n.d.opening, AsideSeen: n.asideSeen(),
	})
	if err != nil {
		return &startError{systemd.MsgStoreDamaged, err}
	}
	n.closers = append(n.closers, m.store.Close)
	if err := n.noteLostMail(ctx, existed, m.store); err != nil {
		return err
	}
	m.courier = messages.NewCourier(messages.CourierOptions{
		Store: m.store, Deliver: n.router.Deliver, Takes: n.router.TakesMail, Contact: n.contact, Announce: m.announce,
		Near: m.near, Tell: m.tell, Now: n.d.o.clock(), Log: n.d.log,
	})
	n.mail = m
	n.router.Post(m.courier, n.remote)
	n.remote.ConnectPost(post{n.router.Deliver, m.courier})
	return nil
}

// post is where mail from other nodes goes: through access.
type post struct {
	deliver func(context.Context, *router.Mail) ([]error, error)
	*messages.Courier
}

func (p post) Deliver(ctx context.Context, m *router.Mail) ([]error, error) { return p.deliver(ctx, m) }

// startMail has messages delivered, and the whole of their file checked beside.
func (n *node) startMail() {
	n.goOn(n.mail.courier.Run)
	n.mail.checkSoon()
	n.goOn(n.mail.checkAll)
}

// checkSoon has the whole file checked.
func (m *mail) checkSoon() {
	select {
	case m.check <- struct{}{}:
	default:
	}
}

func (m *mail) checkAll(ctx context.Context) {
	again := time.NewTicker(checkEach)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		case <-m.check:
		}
		if err := m.store.CheckAll(ctx); err != nil && ctx.Err() == nil {
			m.n.d.log.Error("the messages could not be checked", "error", err)
		}
	}
}

func messageLimits(c config.Config) *messages.Limits {
	b := c.Budgets
	return &messages.Limits{
		PerUIDQueuedMessages: int64(b.PerUIDQueuedMessages), PerUIDQueuedBytes: int64(b.PerUIDQueuedBytes),
		PerPeerUnreadMessages: int64(b.PerPeerUnreadMessages), PerPeerUnreadBytes: int64(b.PerPeerUnreadBytes),
		PerUIDStoredMessages: int64(b.PerUIDStoredMessages), PerPeerStoredMessages: int64(b.PerPeerStoredMessages),
		NodeMessageBytes: int64(b.NodeMessageBytes), KeepRead: c.Messages.KeepRead.Std(),
	}
}

// connected has the mail of those who live at node tried at once.
func (m *mail) connected(node identity.ID) {
	told := make(map[identity.ID]bool)
	for _, own := range m.n.roster.All() {
		for _, c := range m.n.store.ContactsAt(own.ID, node) {
			m.courier.Remind(own.ID, c.ID)
			if !told[c.ID] {
				told[c.ID] = true
				m.courier.Reachable(c.ID)
			}
		}
	}
}

// announce tells a peer that its mail is taken now. To one of this node the
// courier has told it.
func (m *mail) announce(ctx context.Context, owner, to identity.ID, protocol, instance string) error {
	if here, _ := m.n.roster.Here(to); here {
		return nil
	}
	return m.n.remote.Announce(ctx, owner, to, protocol, instance)
}

// saw notes that node is connected, or was until now.
func (m *mail) saw(node identity.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen.Put(node, time.Now())
}

// near tells that a node of to was connected within the hour.
func (m *mail) near(from, to identity.ID) bool {
	if here, _ := m.n.roster.Here(to); here {
		return true
	}
	for _, node := range m.n.remote.Nodes(from, to) {
		if m.n.host.Connected(node) {
			return true
		}
		m.mu.Lock()
		last, ok := m.seen.Peek(node)
		m.mu.Unlock()
		if ok && time.Since(last) < nearFor {
			return true
		}
	}
	return false
}

// listening brings h, a program that listens for messages, what waits for it.
func (m *mail) listening(owner identity.ID, protocol, instance string, h router.Handler) (leave func()) {
	leave = m.courier.Attend(owner, protocol, instance, h)
	m.recheck(owner)
	return leave
}

// recheck has those told whose mail for owner waited and is taken now.
func (m *mail) recheck(owner identity.ID) { m.courier.Recheck(context.Background(), owner) }

func (n *node) contact(owner, id identity.ID) bool {
	_, ok := n.store.Contact(owner, id)
	return ok
}

// waiting counts the messages of each of uid's identities that wait for a person;
// what waits for a program is not for people to read.
func (m *mail) waiting(ctx context.Context, uid uint32) (unread int64, list []api.Mail) {
	for _, own := range m.n.roster.List(uid) {
		one := api.Mail{Identity: own.ID.String()}
		var err error
		if one.New, err = m.store.UnreadOf(ctx, own.ID, api.ProtocolText, api.DefaultInstance); err == nil {
			one.Failed, err = m.store.Failed(ctx, own.ID, api.FailedCounted)
		}
		if err != nil && ctx.Err() == nil {
			m.n.d.log.Error("cannot count the messages that wait for a person", "identity", one.Identity, "error", err)
		}
		if unread += one.New; one.New+one.Failed > 0 {
			list = append(list, one)
		}
	}
	return unread, list
}

// wanted lists what contacts would send to uid.
func (m *mail) wanted(ctx context.Context, uid uint32) (out []api.Wanted) {
	for _, own := range m.n.roster.List(uid) {
		list, err := m.store.Wanted(ctx, own.ID)
		if err != nil && ctx.Err() == nil {
			m.n.d.log.Error("cannot read who wants to send what", "error", err)
		}
		for _, w := range list {
			name, contact := m.n.store.Contact(own.ID, w.Sender)
			if !contact || m.n.store.Blocked(own.ID, w.Sender) || m.n.router.TakesMail(own.ID, w.Sender, w.Protocol, w.Instance) {
				continue // gone or blocked meanwhile, or on its way
			}
			one := api.Wanted{Identity: own.ID.String(), Contact: name, ID52: w.Sender.String(), Protocol: w.Protocol, Last: w.Last,
				Granted: access.Allowed(m.n.store, own.ID, w.Sender, w.Protocol, w.Instance),
				// From the identity itself it is always granted.
				Served: m.n.router.TakesMail(own.ID, own.ID, w.Protocol, w.Instance)}
			if w.Instance != api.DefaultInstance {
				one.Instance = w.Instance
			}
			out = append(out, one)
		}
	}
	return out
}

// forget removes the messages of an identity that is here no more.
func (m *mail) forget(owner identity.ID) {
	if err := m.courier.Forget(context.Background(), owner); err != nil {
		m.n.d.log.Error("the messages of a removed identity could not be removed", "identity", owner.String(), "error", err)
	}
}

var noticeTexts = map[string]string{
	api.EventMessageReceived:  "%s: new message from %s",
	api.EventMessageDelivered: "%s: message delivered to %s",
	api.EventMessageRefused:   "%s: message refused by %s",
	api.EventMessageExpired:   "%s: message expired before it reached %s",
	api.EventProtocolWanted:   "%s is not served here, or not granted; messages wait at %s",
}

// tell publishes a notice to the user it is for.
func (m *mail) tell(t messages.Notice) {
	uid, ok := m.n.roster.Owner(t.Owner)
	if !ok {
		return
	}
	who := (*backend)(m.n.d).ContactName(t.Owner, t.Other)
	e := api.Event{Kind: t.Kind, Identity: t.Owner.String(), Contact: who, Protocol: t.Protocol, Message: t.ID}
	if who == "" {
		who = t.Other.Short()
	}
	text := noticeTexts[t.Kind]
	if t.Kind == api.EventMessageReceived && t.ID == "" {
		text = "%s: new messages from %s" // they came together
	}
	e.Text = fmt.Sprintf(text, t.Protocol, who)
	if t.Reason != "" {
		e.Text += ": " + t.Reason
	}
	m.n.d.hub.Publish(e, uid)
}

func (m *mail) aside(a messages.Aside) {
	m.n.d.log.Error("a message was found changed on the disk and is set aside", systemd.MsgStoreDamaged.Attr(),
		"box", a.Box, "seq", a.Seq, "message", a.ID, "from", a.From.String(), "to", a.To.String(), "reason", a.Reason)
	m.tellAside(a)
}

// tellAside tells whose message it was, if that can be read still. What is damaged
// may say anything: only what checks out is told.
func (m *mail) tellAside(a messages.Aside) {
	owner, other, text := a.From, a.To, "a message that you sent to %s was found changed on this machine's disk, and is set aside"
	if a.Box == "inbox" {
		owner, other, text = a.To, a.From, "a message from %s was found changed on this machine's disk, and is set aside"
	}
	uid, ok := m.n.roster.Owner(owner)
	if !ok {
		return
	}
	e := api.Event{Kind: api.EventMessageDamaged, Identity: owner.String(), Text: fmt.Sprintf(text, "somebody")}
	if name, ok := m.n.store.Contact(owner, other); ok {
		e.Contact, e.Text = name, fmt.Sprintf(text, name)
	}
	if api.ValidUUID(a.ID) {
		e.Message = a.ID
	}
	m.n.d.hub.Publish(e, uid)
}

// diskRefused has the disk watched, also where nobody here asked for anything:
// mail came in.
func (m *mail) diskRefused(err error) {
	if m.n.d.disk.trouble.Load() == nil {
		_ = m.n.d.explain(err)
	}
}

// recovered is told of damage that was repaired while in use.
func (m *mail) recovered(r *sqlite.Recovery) {
	text := tellMail("damaged while in use", r)
	if r.Missing { // the log may still hold some
		text = "the file of the messages was removed while in use: those that waited to be sent and those that were received are gone, but for the last ones perhaps"
	}
	m.n.lost(text, r.Cause, m.store.Told)
	m.checkSoon()
}

// clockProblem tells of a clock that jumped.
func clockProblem(by time.Duration) api.Problem {
	where := "ahead of"
	if by < 0 {
		where = "behind"
	}
	return api.Problem{Text: fmt.Sprintf("the clock is %d hours %s where it should be: for an hour no message expires and none is forgotten; one that has expired by it waits, with those behind it", int(by.Abs().Hours()), where),
		Fix: "look at the clock with date; if it is right, nothing is to be done: the machine was off for long, or the clock was wrong before"}
}

// asideLine tells of n messages that were set aside.
func asideLine(n int64) string {
	what := "1 message was found changed on the disk and is"
	if n > 1 {
		what = fmt.Sprintf("%d messages were found changed on the disk and are", n)
	}
	return what + " not delivered; the daemon's log names each"
}

// status adds what uid is told of the messages. It does not wait for a repair.
func (m *mail) status(ctx context.Context, s *api.Status, uid uint32) {
	if n := m.store.AsideCount(); n > 0 {
		s.Problems = append(s.Problems, api.Problem{Text: asideLine(n),
			Fix: "look at the disk's health, restore a backup if they matter, and acknowledge it: " + m.n.d.reloadCommand()})
	}
	if since, ok := m.store.Mending(); ok {
		s.Problems = append(s.Problems, api.Problem{Text: "the messages were found damaged and have been under repair since " + since.Format(time.TimeOnly) +
			"; whoever sends or reads messages waits", Fix: "wait until it is done"})
		return
	}
	if err := m.courier.Trouble(); err != nil {
		s.Problems = append(s.Problems, api.Problem{Text: "messages that wait are not delivered, since they cannot be read: " + strings.Join(strings.Fields(err.Error()), " "),
			Fix: "look at the disk's health; it is tried again by itself"})
	}
	if by := m.store.Jump(); by != 0 {
		s.Problems = append(s.Problems, clockProblem(by))
	}
	s.Budgets = append(s.Budgets, m.store.Budgets(uid)...)
	unread, list := m.waiting(ctx, uid)
	s.Unread, s.Mail = unread, append(s.Mail, list...)
	s.Wanted = append(s.Wanted, m.wanted(ctx, uid)...)
}
