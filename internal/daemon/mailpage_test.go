package daemon

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
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
