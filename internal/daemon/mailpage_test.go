package daemon

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// A page of the inbox or outbox ends before a large message: it tells that there
// is more.
func TestMailPagesTellThatThereIsMore(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	const n = 5
	for i := range n {
		text := "short"
		if i%2 == 1 {
			text = strings.Repeat("x", 900<<10)
		}
		data, err := json.Marshal(map[string]string{"text": text})
		if err != nil {
			t.Fatal(err)
		}
		sent, err := d.c.Send(limited(t), client.Message{Target: api.TargetSelf, Protocol: api.ProtocolText, Data: data})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.c.WaitFinal(limited(t), sent.MessageID); err != nil {
			t.Fatal(err)
		}
	}
	var in api.InboxPage
	got := 0
	for more := true; more; more = in.More {
		after := in.Cursor
		in = api.InboxPage{}
		if err := d.c.Verb(limited(t), api.VerbInboxList, api.InboxListArgs{After: after, Limit: n}, &in); err != nil {
			t.Fatal(err)
		}
		if got += len(in.Messages); len(in.Messages) == 0 && after == 0 {
			t.Fatal("the inbox is empty")
		}
	}
	if got != n {
		t.Errorf("the inbox shows %d of %d messages", got, n)
	}
}

// A message of the largest size can be listed, shown, read and removed, also by one
// whose requests have the longest ids, and jams no other.
func TestLargestMessageJamsNothing(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	largest := strings.Repeat("x", api.MaxPayload-len(text("")))
	var ids []string
	for _, s := range []string{"before", largest, "behind"} {
		ids = append(ids, d.send(client.Message{Target: api.TargetSelf, Data: text(s)}).MessageID)
		d.final(ids[len(ids)-1])
	}
	var listed []string
	for page := (api.InboxPage{More: true}); page.More; {
		page = verb[api.InboxPage](t, d.c, api.VerbInboxList, api.InboxListArgs{After: page.Cursor})
		for _, m := range page.Messages {
			listed = append(listed, m.MessageID)
		}
	}
	wantNames(t, "the inbox", listed, ids...)
	raw := d.raw()
	for _, name := range []string{api.VerbInboxShow, api.VerbInboxRead, api.VerbInboxRemove} {
		line := raw.ask(string(api.AppendRequest(nil, &api.Request{ID: strings.Repeat("\x01", api.MaxID), Type: name,
			Data: json.RawMessage(`{"message_id":"` + ids[1] + `"}`)})))
		var r api.Response
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Err() != nil || len(line) > api.MaxLine {
			t.Fatalf("%s: %d bytes, %v, %v", name, len(line), err, r.Err())
		}
		var m api.InboxMessage
		if err := json.Unmarshal(r.Data, &m); err != nil || len(m.Data) != api.MaxPayload {
			t.Errorf("%s: %d bytes of data, %v", name, len(m.Data), err)
		}
	}
}

// What a peer answers, as long as it may be, keeps nobody from listing the outbox.
func TestLongReasonsJamNoList(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	const n = 300
	var ids []string
	for range n {
		ids = append(ids, d.send(client.Message{Target: api.TargetSelf, Protocol: "orders/1", Data: json.RawMessage("1")}).MessageID)
	}
	own := ownID(t, d)
	reason := strings.Repeat(`"`, wire.MaxMessage)
	lane := messages.Lane{From: own, To: own, Protocol: "orders/1", Instance: api.DefaultInstance}
	var err error
	wait := &messages.Wait{Code: api.CodePending, Reason: reason, NextTry: time.Now().Add(time.Hour)}
	eventually(t, "they wait for the long reason", func() bool {
		m := verb[api.OutboxMessage](t, d.c, api.VerbOutboxShow, api.OutboxArgs{MessageID: ids[n-1]})
		if m.Code == api.CodePending && m.Reason != reason { // else a carrier is to write its own still
			err = d.node.Load().mail.store.Settle(limited(t), lane, nil, wait)
		}
		return err != nil || m.Reason == reason
	})
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for page := (api.OutboxPage{More: true}); page.More; {
		page = verb[api.OutboxPage](t, d.c, api.VerbOutboxList, api.OutboxListArgs{After: page.Cursor, Limit: 1000})
		for _, m := range page.Messages {
			listed = append(listed, m.MessageID)
		}
	}
	wantNames(t, "the outbox", listed, ids...)
}
