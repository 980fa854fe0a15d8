package daemon

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// Messages that were set aside are told until a reload acknowledges them, also by the
// next start.
func TestSetAsideIsAcknowledged(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.own()
	d.stop()
	db, err := sql.Open("sqlite", filepath.Join(d.home, messages.File))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "INSERT INTO aside (box, seq, found, reason) VALUES ('inbox', 1, ?, '')", time.Now().UnixMicro()); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d = d.again(t, opts{})
		if p := d.status().Problems; len(p) != 1 || !strings.HasPrefix(p[0].Text, "1 message was found changed") || !strings.Contains(p[0].Fix, "reload") {
			t.Fatalf("%+v", p)
		}
	}
	d.mustReload()
	for range 2 {
		if p := d.status().Problems; len(p) != 0 {
			t.Errorf("after it was acknowledged: %+v", p)
		}
		d = d.again(t, opts{})
	}
}
