package daemon

import (
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// Whose message is set aside is told so, with nothing that does not check out.
func TestSetAsideIsTold(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	m := alice.node.Load().mail
	own, other := m.n.roster.All()[0].ID, bob.node.Load().roster.All()[0].ID
	const id = "123e4567-e89b-42d3-a456-426614174000"
	cursor := alice.hub.Cursor()
	m.aside(messages.Aside{Box: "outbox", From: other, To: own, ID: id}) // nobody's here
	m.aside(messages.Aside{Box: "outbox", From: own, To: other, ID: id})
	m.aside(messages.Aside{Box: "inbox", From: identity.ID{1}, To: own, ID: "\x1b[2J", Reason: "\x1b[2J"})
	events, _, err := alice.hub.Next(limited(t), admin.UID, []string{api.EventMessageDamaged}, cursor)
	if err != nil || len(events) != 2 {
		t.Fatalf("told %+v, %v", events, err)
	}
	if e := events[0]; e.Contact != "bob" || e.Message != id || !strings.Contains(e.Text, "sent to bob") {
		t.Errorf("%+v", e)
	}
	if e := events[1]; e.Contact != "" || e.Message != "" || !strings.Contains(e.Text, "from somebody") || strings.Contains(e.Text, "\x1b") {
		t.Errorf("%+v", e)
	}
}
