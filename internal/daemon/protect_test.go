package daemon

import (
	"context"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// A node that serves a protocol is to stay connected to those who may use it:
// also to a contact that came later, and no longer to one that is gone.
func TestServedContactsAreKeptConnected(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := start(t, opts{}), start(t, opts{})
	node := nodeOf(t, alice)
	stop := serve(t, bob.c, "sum/1", func(context.Context, *client.Incoming) {})
	protects := func() bool {
		r := bob.node.Load().reach
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, s := range r.served {
			if s.nodes[node] {
				return true
			}
		}
		return false
	}
	if protects() {
		t.Fatal("a stranger's node is kept connected")
	}
	meet(t, alice, bob)
	eventually(t, "the new contact's node is kept connected", protects)
	// The connection comes back by bob's doing alone.
	again := alice.again(t, opts{})
	eventually(t, "the restarted node is connected", func() bool { return len(again.status().Peers) == 1 && again.status().Peers[0].Connected })
	verb[struct{}](t, bob.c, api.VerbContactRemove, api.NameArgs{Name: bob.contacts()[0]})
	eventually(t, "the removed contact's node is let go", func() bool { return !protects() })
	stop()
}

func nodeOf(t *testing.T, d *testDaemon) identity.ID {
	t.Helper()
	id, err := identity.ParseID(d.status().Node.ID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
