package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

func (d *testDaemon) send(m client.Message) api.SendResult {
	d.t.Helper()
	if m.Protocol == "" {
		m.Protocol = api.ProtocolText
	}
	sent, err := d.c.Send(limited(d.t), m)
	if err != nil {
		d.t.Fatal(full(err))
	}
	return sent
}

func (d *testDaemon) final(id string) api.OutboxMessage {
	d.t.Helper()
	m, err := d.c.WaitFinal(limited(d.t), id)
	if err != nil {
		d.t.Fatalf("%+v, %s", m, full(err))
	}
	return m
}

func text(s string) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"text":%q}`, s)) }

// A message that is sent while the receiver is away is on both disks, once, when
// it is back; whatever the sender repeats.
func TestMessageToOneWhoIsAway(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	first := alice.send(client.Message{Target: "bob", Data: text("one")})
	if m := alice.final(first.MessageID); m.State != api.StateDelivered || m.Contact != "bob" {
		t.Fatalf("%+v", m)
	}
	bob.stop()
	id := "123e4567-e89b-42d3-a456-426614174000"
	for range 3 {
		if sent := alice.send(client.Message{Target: "bob", Data: text("two"), ID: id}); sent.State != api.StateQueued || sent.MessageID != id {
			t.Fatalf("%+v", sent)
		}
	}
	_, err := alice.c.Send(limited(t), client.Message{Target: "bob", Protocol: api.ProtocolText, Data: text("three"), ID: id})
	wantCode(t, err, api.CodeConflict)
	alice = alice.again(t, opts{})
	bob = bob.again(t, opts{})
	if m := alice.final(id); m.State != api.StateDelivered {
		t.Fatalf("%+v", m)
	}
	page := verb[api.InboxPage](t, bob.c, api.VerbInboxList, api.InboxListArgs{Unread: true})
	if len(page.Messages) != 2 || string(page.Messages[0].Data) != `{"text":"one"}` || string(page.Messages[1].Data) != `{"text":"two"}` ||
		page.Messages[1].MessageID != id || page.Messages[1].Contact != "alice" {
		t.Fatalf("bob has %+v", page.Messages)
	}
	if n := bob.status().Unread; n != 2 {
		t.Errorf("%d are unread", n)
	}
	if m := verb[api.OutboxMessage](t, alice.c, api.VerbOutboxShow, api.OutboxArgs{MessageID: id}); m.Size != int64(len(text("two"))) {
		t.Errorf("%d bytes were delivered", m.Size)
	}
	if sent := alice.send(client.Message{Target: "bob", Data: text("two"), ID: id}); sent.State != api.StateDelivered {
		t.Errorf("repeated when delivered: %+v", sent)
	}
}

// Messages for a protocol that bob does not serve wait at alice; bob is told once,
// and when a program takes them they come, in order, each until it is acknowledged.
func TestMessagesWaitForTheirProgram(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	cursor := bob.hub.Cursor()
	var ids []string
	for i := range 5 {
		ids = append(ids, alice.send(client.Message{Target: "bob", Protocol: "orders/1", Data: json.RawMessage(fmt.Sprint(i))}).MessageID)
	}
	eventually(t, "alice knows why they wait", func() bool {
		m := verb[api.OutboxMessage](t, alice.c, api.VerbOutboxShow, api.OutboxArgs{MessageID: ids[4]})
		return m.State == api.StateQueued && m.Code == api.CodePending && m.NextTry != nil
	})
	bob.wantWanted(t, "alice", "orders/1")
	events, _, err := bob.hub.Next(limited(t), admin.UID, []string{api.EventProtocolWanted}, cursor)
	if err != nil || len(events) != 1 || events[0].Contact != "alice" || events[0].Protocol != "orders/1" {
		t.Fatalf("bob was told %+v, %v", events, err)
	}
	verb[api.Grant](t, bob.c, api.VerbGrantAdd, api.GrantArgs{Who: "alice", Protocol: "orders/1"})
	bob.wantWanted(t, "alice", "orders/1") // nobody serves it

	got := make(chan *client.Incoming)
	l, err := bob.c.Listen(limited(t), client.ListenOptions{Protocol: "orders/1", Kinds: []string{"message"}})
	if err != nil {
		t.Fatal(full(err))
	}
	go func() {
		defer close(got)
		for {
			in, err := l.Next(context.Background())
			if err != nil {
				return
			}
			got <- in
		}
	}()
	for i := range 4 {
		in := <-got
		if in.Kind != "message" || in.MessageID != ids[i] || string(in.Data) != fmt.Sprint(i) || in.Contact != "alice" {
			t.Fatalf("message %d is %+v", i, in.Incoming)
		}
		if i == 3 {
			break // and ends without a word
		}
		if err := in.Reply(limited(t), nil); err != nil {
			t.Fatal(full(err))
		}
	}
	l.Close()
	for range got {
	}
	for _, id := range ids {
		if m := alice.final(id); m.State != api.StateDelivered {
			t.Errorf("%+v", m)
		}
	}
	if w := bob.status().Wanted; len(w) != 0 {
		t.Errorf("still wanted: %+v", w)
	}
	if n := bob.status().Unread; n != 0 {
		t.Errorf("%d messages for a program count as new", n)
	}
	var told []string
	eventually(t, "the end of the first program is noticed", func() bool {
		l, err = bob.c.Listen(limited(t), client.ListenOptions{Protocol: "orders/1", Kinds: []string{"message"}})
		return api.CodeOf(err) != api.CodeConflict
	})
	if err != nil {
		t.Fatal(full(err))
	}
	defer l.Close()
	for range 2 {
		in, err := l.Next(limited(t))
		if err != nil {
			t.Fatal(full(err))
		}
		told = append(told, in.MessageID)
		if err := in.Reply(limited(t), nil); err != nil {
			t.Fatal(full(err))
		}
	}
	if told[0] != ids[3] || told[1] != ids[4] {
		t.Errorf("the next program was told of %q, want %q", told, ids[3:])
	}
	eventually(t, "none waits", func() bool {
		return len(verb[api.InboxPage](t, bob.c, api.VerbInboxList, api.InboxListArgs{}).Messages) == 0
	})
}

func (d *testDaemon) wantWanted(t testing.TB, contact, protocol string) {
	t.Helper()
	w := d.status().Wanted
	if len(w) != 1 || w[0].Contact != contact || w[0].Protocol != protocol || w[0].Last.IsZero() {
		t.Fatalf("wanted: %+v", w)
	}
}

// One who is no contact is refused for good; so is what no receiver would take.
func TestMessageThatIsNotTaken(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	verb[struct{}](t, bob.c, api.VerbContactRemove, api.NameArgs{Name: "alice"})
	sent := alice.send(client.Message{Target: "bob", Data: text("hello?")})
	if m := alice.final(sent.MessageID); m.State != api.StateRefused || m.Code != api.CodeRefused || m.Reason != api.Refusal().Message {
		t.Errorf("%+v", m)
	}
	_, err := alice.c.Send(limited(t), client.Message{Target: "bob", Protocol: api.ProtocolText, Data: json.RawMessage(`{"text":1}`)})
	wantCode(t, err, api.CodeBadRequest)
	// Known again, it is only to be tried again.
	ticket := alice.invite(api.InviteArgs{})
	verb[api.Contact](t, bob.c, api.VerbContactAdd, api.ContactAddArgs{Name: "alice", Ticket: ticket})
	verb[api.OutboxMessage](t, alice.c, api.VerbOutboxRetry, api.OutboxArgs{MessageID: sent.MessageID})
	if m := alice.final(sent.MessageID); m.State != api.StateDelivered {
		t.Errorf("%+v", m)
	}
}

// What an identity has queued goes on when it is served again.
func TestMessagesOfOneOffline(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	name := alice.own().Name
	bob.stop()
	sent := alice.send(client.Message{Target: "bob", Data: text("hello")})
	verb[api.Identity](t, alice.c, api.VerbIdentityOffline, api.IdentityArgs{Identity: name})
	bob.again(t, opts{})
	if m := verb[api.OutboxMessage](t, alice.as(name), api.VerbOutboxShow, api.OutboxArgs{MessageID: sent.MessageID}); m.State != api.StateQueued {
		t.Errorf("sent by one offline: %+v", m)
	}
	verb[api.Identity](t, alice.c, api.VerbIdentityOnline, api.IdentityArgs{Identity: name})
	if m := alice.final(sent.MessageID); m.State != api.StateDelivered {
		t.Errorf("%+v", m)
	}
}

// Who comes online here gets at once what waits here.
func TestMessagesToOneOffline(t *testing.T) {
	testutil.LeakCheck(t)
	now := new(clock)
	d := start(t, opts{clock: now})
	home := d.own().Name
	verb[api.Identity](t, d.c, api.VerbIdentityNew, api.NameArgs{Name: "work"})
	ticket := verb[api.Invitation](t, d.as("work"), api.VerbContactInvite, nil).Ticket
	verb[api.Contact](t, d.as(home), api.VerbContactAdd, api.ContactAddArgs{Name: "job", Ticket: ticket})
	verb[api.Identity](t, d.c, api.VerbIdentityOffline, api.IdentityArgs{Identity: "work"})
	sent := d.send(client.Message{Target: "job", Data: text("hello")})
	eventually(t, "it waits", func() bool {
		m := verb[api.OutboxMessage](t, d.as(home), api.VerbOutboxShow, api.OutboxArgs{MessageID: sent.MessageID})
		return m.NextTry != nil && m.Reason != ""
	})
	now.forward(-time.Hour) // until the next try
	verb[api.Identity](t, d.c, api.VerbIdentityOnline, api.IdentityArgs{Identity: "work"})
	if m := d.final(sent.MessageID); m.State != api.StateDelivered {
		t.Errorf("%+v", m)
	}
}

// A message id has one form, in whatever case a client or a peer gives it.
func TestMessageIDsHaveOneForm(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	const upper, lower = "ABCDEF01-2345-4789-8ABC-DEF012345678", "abcdef01-2345-4789-8abc-def012345678"
	if sent := alice.send(client.Message{Target: "bob", Data: text("one"), ID: upper}); sent.MessageID != lower {
		t.Errorf("%+v", sent)
	}
	for _, id := range []string{upper, lower} {
		if m := alice.final(id); m.State != api.StateDelivered || m.MessageID != lower {
			t.Errorf("%+v", m)
		}
	}
	const two, twoLower = "BBCDEF01-2345-4789-8ABC-DEF012345678", "bbcdef01-2345-4789-8abc-def012345678"
	outcomes, err := alice.node.Load().remote.Deliver(limited(t), &router.Mail{From: ownID(t, alice), To: ownID(t, bob), Protocol: api.ProtocolText,
		Instance: api.DefaultInstance, Letters: []router.Letter{{ID: two, Created: time.Now(), Data: text("two")}}})
	if err != nil || len(outcomes) != 1 || outcomes[0] != nil {
		t.Fatal(outcomes, full(err))
	}
	var listed []string
	for _, m := range verb[api.InboxPage](t, bob.c, api.VerbInboxList, nil).Messages {
		listed = append(listed, m.MessageID)
	}
	wantNames(t, "the inbox", listed, lower, twoLower)
	for _, id := range []string{two, twoLower} {
		if m := verb[api.InboxMessage](t, bob.c, api.VerbInboxRead, api.InboxArgs{MessageID: id, From: "alice"}); m.MessageID != twoLower {
			t.Errorf("%+v", m)
		}
	}
}

func ownID(t *testing.T, d *testDaemon) identity.ID {
	t.Helper()
	id, err := identity.ParseID(d.own().ID52)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Sends whose answers nobody awaited arrive in the order of their lines.
func TestSendsOfOneConnectionKeepTheirOrder(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	const n = 200
	var lines []byte
	var want []string
	for i := range n {
		want = append(want, string(text(fmt.Sprint(i))))
		lines = api.AppendRequest(lines, &api.Request{ID: fmt.Sprint(i), Type: api.TypeSend, Target: api.TargetSelf,
			Protocol: api.ProtocolText, Data: text(fmt.Sprint(i))})
	}
	raw := d.raw()
	if _, err := raw.Write(lines); err != nil {
		t.Fatal(err)
	}
	for range n {
		var r api.Response
		line, err := raw.in.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &r)
		}
		if err != nil || r.Err() != nil {
			t.Fatal(err, r.Err())
		}
	}
	var got []string
	eventually(t, "all are there", func() bool {
		got = nil
		for _, m := range verb[api.InboxPage](t, d.c, api.VerbInboxList, api.InboxListArgs{Limit: 1000}).Messages {
			got = append(got, string(m.Data))
		}
		return len(got) == n
	})
	wantNames(t, "the inbox", got, want...)
}

// To one whom the sender has blocked nothing is stored. What waits when he is blocked
// waits on, says why, and goes when that ends.
func TestMessagesToOneBlocked(t *testing.T) {
	testutil.LeakCheck(t)
	alice, _ := pair(t)
	known := alice.send(client.Message{Target: "bob", Data: text("before")})
	alice.final(known.MessageID)
	sent := alice.send(client.Message{Target: "bob", Protocol: "orders/1", Data: text("hello")})
	var m api.OutboxMessage
	waits := func(code api.Code) {
		t.Helper()
		eventually(t, "it waits: "+string(code), func() bool {
			m = verb[api.OutboxMessage](t, alice.c, api.VerbOutboxShow, api.OutboxArgs{MessageID: sent.MessageID})
			return m.State == api.StateQueued && m.Code == code
		})
	}
	waits(api.CodePending) // for an hour
	cursor := alice.hub.Cursor()
	verb[api.Contact](t, alice.c, api.VerbContactBlock, api.NameArgs{Name: "bob"})
	waits(api.CodeNotPermitted)
	if m.Reason != "you blocked bob" {
		t.Errorf("%+v", m)
	}
	_, err := alice.c.Send(limited(t), client.Message{Target: "bob", Protocol: api.ProtocolText, Data: text("more")})
	if e := wantCode(t, err, api.CodeNotPermitted); e.Message != "you blocked bob" || e.Hint != `"fastn contact unblock bob" ends that` {
		t.Errorf("%+v", e)
	}
	// What was sent before is answered as ever.
	alice.send(client.Message{Target: "bob", Data: text("before"), ID: known.MessageID})
	alice.send(client.Message{Target: "bob", Protocol: "orders/1", Data: text("hello"), ID: sent.MessageID})
	if list := verb[api.OutboxPage](t, alice.c, api.VerbOutboxList, api.OutboxListArgs{All: true}).Messages; len(list) != 2 {
		t.Errorf("stored: %+v", list)
	}
	verb[api.Contact](t, alice.c, api.VerbContactUnblock, api.NameArgs{Name: "bob"})
	waits(api.CodePending)
	told, _, err := alice.hub.Next(limited(t), admin.UID, []string{api.EventMessageRefused, api.EventContactUnblocked}, cursor)
	if err != nil || len(told) != 1 || told[0].Kind != api.EventContactUnblocked {
		t.Errorf("alice was told %+v, %v", told, err)
	}
}
