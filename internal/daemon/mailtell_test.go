package daemon

import (
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// Messages that came together are told once, without an id, as several.
func TestMessagesThatCameTogetherAreTold(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	own, err := identity.ParseID(d.own().ID52)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"": "Text: new messages from self", api.NewUUID(): "Text: new message from self"} {
		cursor := d.hub.Cursor()
		d.node.Load().mail.tell(messages.Notice{Kind: api.EventMessageReceived, Owner: own, Other: own, Protocol: api.ProtocolText, ID: id})
		told, _, err := d.hub.Next(limited(t), admin.UID, []string{api.EventMessageReceived}, cursor)
		if err != nil || len(told) != 1 || told[0].Text != want || told[0].Message != id {
			t.Errorf("with the id %q %+v, %v; want %q", id, told, err, want)
		}
	}
}
