package daemon

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

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

// Nodes that are to be told of other addresses are looked for until their time is
// over; those that an earlier version noted have all of it.
func TestUntoldNodesAreGivenUp(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var ids [3]identity.ID
	for i := range ids {
		key, err := identity.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = key.ID()
	}
	old, due, over := ids[0], ids[1], ids[2]
	got := parseUntold(fmt.Sprintf("%s %s@%d %s@%d nonsense", old, due, now.Unix()+5, over, now.Unix()-5), now)
	want := map[identity.ID]time.Time{old: now.Add(tellWithin), due: time.Unix(now.Unix()+5, 0)}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Who is to be told of other addresses is noted until it was connected for long enough
// to keep them: one that ends before that finds this node no more.
func TestUntoldNodesAreKept(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := start(t, opts{}), start(t, opts{})
	meet(t, alice, bob)
	n, bobs := alice.node.Load(), nodeOf(t, bob)
	r := n.reach
	if err := r.moved(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept, _ := n.store.Meta(untoldKey)
	if until, ok := parseUntold(kept, time.Now())[bobs]; !ok || time.Until(until) > tellWithin || time.Until(until) < tellWithin-time.Hour {
		t.Errorf("kept %q", kept)
	}
	now := time.Now()
	if fewer, next := r.settle(now.Add(tellFor / 2)); fewer || next <= 0 || next > tellFor {
		t.Errorf("connected just now: let go %v, next look in %v", fewer, next)
	}
	r.disconnected(bobs)
	if fewer, next := r.settle(now.Add(time.Hour)); fewer || next != 0 {
		t.Errorf("ended too early: let go %v, next look in %v", fewer, next)
	}
	r.connected(bobs)
	if fewer, _ := r.settle(now.Add(time.Hour)); !fewer {
		t.Error("one that was told is not let go of")
	}
	// One that never comes is looked for until its time is over.
	if err := r.moved(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.disconnected(bobs)
	if fewer, _ := r.settle(now.Add(tellWithin - time.Minute)); fewer {
		t.Error("let go of too early")
	}
	if fewer, _ := r.settle(now.Add(tellWithin + time.Minute)); !fewer {
		t.Error("looked for without an end")
	}
}

// A node is let go of when it was told, and when no contact lives there any more.
func TestNodesThatNeedNotBeToldAreLetGo(t *testing.T) {
	testutil.LeakCheck(t)
	for name, end := range map[string]func(r *reach, alice *testDaemon, bobs identity.ID){
		"told": func(r *reach, _ *testDaemon, bobs identity.ID) {
			r.mu.Lock()
			r.tellFor = time.Millisecond
			r.mu.Unlock()
			r.connected(bobs)
		},
		"removed": func(_ *reach, alice *testDaemon, _ identity.ID) {
			verb[struct{}](t, alice.c, api.VerbContactRemove, api.NameArgs{Name: alice.contacts()[0]})
		},
	} {
		alice, bob := start(t, opts{}), start(t, opts{})
		meet(t, alice, bob)
		n, bobs := alice.node.Load(), nodeOf(t, bob)
		if err := n.reach.moved(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !n.host.Sought(bobs) {
			t.Fatal("a node that is to be told is not looked for")
		}
		n.reach.disconnected(bobs)
		end(n.reach, alice, bobs)
		eventually(t, name+": the node is let go of", func() bool {
			kept, _ := n.store.Meta(untoldKey)
			return kept == "" && !n.host.Sought(bobs)
		})
	}
}

func nodeOf(t *testing.T, d *testDaemon) identity.ID {
	t.Helper()
	id, err := identity.ParseID(d.status().Node.ID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
