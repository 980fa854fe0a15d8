package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// TestTwoMachines is the main job: users of two machines call and stream.
func TestTwoMachines(t *testing.T) { onEach(t, testTwoMachines) }

func testTwoMachines(t *testing.T, s suite) {
	north, south := boot(t, s, "north"), boot(t, s, "south")
	nspawn.Link(north, south, "2.1.1.1/24", "2.1.1.2/24")
	for _, m := range []*nspawn.Machine{north, south} {
		install(t, m)
		enable(m)
	}
	addUser(north, "alice", "fastn")
	addUser(south, "bob", "fastn")
	addUser(south, "eve", "fastn")
	// Records of peers' doings are for debugging; they must not be forgeable then.
	for _, m := range []*nspawn.Machine{north, south} {
		m.Must("sed", "-i", `s/^#level = .*/level = "debug"/`, configFile)
		m.Must("grep", `^level = "debug"`, configFile)
		m.Must("fastnd", "--check-config")
	}
	step := func(name string, f func(t *testing.T, north, south *nspawn.Machine)) {
		t.Run(name, func(t *testing.T) { f(t, north.For(t), south.For(t)) })
	}
	step("a ticket makes contacts of both", exchangeTicket)
	step("a call, both ways", callAcross)
	step("a stream, both directions checksummed", streamAcross)
	step("ping and peers tell the path", pathShown)
	step("calls and streams across leave nothing behind", func(t *testing.T, north, south *nspawn.Machine) {
		worn(t, south, "bob", "alice", north)
	})
	step("a stranger is refused, whatever is asked for", strangerRefused)
	step("a removed contact is a stranger", removedContact)
	step("the journal has the fields, and no peer forges one", journalFields)
}

func exchangeTicket(t *testing.T, north, south *nspawn.Machine) {
	r := north.RunAs("alice", "fastn", "invite", "--for", "bob")
	ticket := strings.TrimSpace(r.Out)
	if r.Code != 0 || !strings.HasPrefix(ticket, "fastn1") || strings.ContainsAny(ticket, " \n") {
		t.Fatalf("%v", r)
	}
	if strings.Contains(r.Err, "public") {
		t.Errorf("2.1.1.1 counts as public, yet it warns: %s", r.Err)
	}
	if r := south.RunInput("bob", ticket+"\n", "fastn", "contact", "add", "alice", "-"); r.Code != 0 {
		t.Fatalf("%v", r)
	}
	if got := north.MustAs("alice", "fastn", "contact", "list", "--json"); !strings.Contains(got, `"bob"`) {
		t.Errorf("alice's contacts: %s", got)
	}
	// One ticket, one contact: another user cannot use it too.
	if r := south.RunInput("eve", ticket+"\n", "fastn", "contact", "add", "alice", "-"); r.Code == 0 {
		t.Errorf("a used ticket was taken again: %v", r)
	}
}

func callAcross(t *testing.T, north, south *nspawn.Machine) {
	if got := south.MustAs("bob", "fastn", "call", "alice", "Echo", `{"message":"hello"}`); !jsonEqual(got, `{"echoed":"Echo: hello"}`) {
		t.Errorf("bob got %s", got)
	}
	if got := north.MustAs("alice", "fastn", "call", "bob", "Echo", `{"message":"back"}`); !jsonEqual(got, `{"echoed":"Echo: back"}`) {
		t.Errorf("alice got %s", got)
	}
}

func jsonEqual(a, b string) bool {
	var x, y map[string]any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil || len(x) != len(y) {
		return false
	}
	for k := range x {
		if x[k] != y[k] {
			return false
		}
	}
	return true
}

// The echo's end must follow the sender's end, with every byte before it.
const streamScript = `set -eu
head -c 8388608 /dev/urandom >/tmp/sent.$1
fastn stream "$1" Echo </tmp/sent.$1 >/tmp/received.$1
cmp /tmp/sent.$1 /tmp/received.$1
sha256sum </tmp/received.$1`

func streamAcross(t *testing.T, north, south *nspawn.Machine) {
	sum := south.MustAs("bob", "sh", "-c", streamScript, "sh", "alice")
	t.Logf("bob to alice and back: %s", sum)
	sum = north.MustAs("alice", "sh", "-c", streamScript, "sh", "bob")
	t.Logf("alice to bob and back: %s", sum)

	// A program of alice's own serves a protocol, granted by name.
	north.MustAs("alice", "fastn", "grant", "add", "bob", "Count")
	ctx := t.Context()
	serve := north.CommandContext(ctx, "alice", "fastn", "listen", "Count", "--", "wc", "-c")
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		north.Run("pkill", "--uid", "alice", "--full", "fastn listen Count")
		serve.Wait()
	}()
	north.Eventually(soon, "alice's program to serve", func() bool {
		return strings.Contains(north.MustAs("alice", "fastn", "id", "--json"), `"Count"`)
	})
	if r := south.RunInput("bob", strings.Repeat("x", 100_000), "fastn", "stream", "alice", "Count"); r.Code != 0 || strings.TrimSpace(r.Out) != "100000" {
		t.Errorf("alice's program counted: %v", r)
	}
}

func pathShown(t *testing.T, north, south *nspawn.Machine) {
	if r := south.RunAs("bob", "fastn", "ping", "alice", "-c", "2"); r.Code != 0 || !strings.Contains(r.Out, "direct quic") {
		t.Errorf("%v", r)
	}
	var peers []api.Peer
	if err := json.Unmarshal([]byte(south.MustAs("bob", "fastn", "peers", "--json")), &peers); err != nil {
		t.Fatal(err)
	}
	if len(peers) != 1 || !peers[0].Connected || !strings.Contains(peers[0].Address, "2.1.1.1") || peers[0].Node != status(t, north).Node.ID {
		t.Errorf("bob's peers: %+v", peers)
	}
	if got := south.MustAs("eve", "fastn", "peers", "--json"); strings.Contains(got, "alice") {
		t.Errorf("eve is told of bob's contact: %s", got)
	}
}

// eve knows everything about alice but is nobody to her.
func strangerRefused(t *testing.T, north, south *nspawn.Machine) {
	alice := get[api.Identity](t, north, "alice", api.VerbIdentityShow, struct{}{})
	root := get[api.Identity](t, north, "root", api.VerbIdentityShow, struct{}{})
	var address string
	for _, a := range status(t, north).Node.Addresses {
		if strings.HasPrefix(a, "/ip4/2.1.1.1/udp/") {
			address = a
		}
	}
	if address == "" {
		t.Fatalf("no address of alice's node to use: %v", status(t, north).Node.Addresses)
	}
	var answers []string
	for name, id := range map[string]string{"real": alice.ID52, "other": root.ID52, "nobody": nobodysID} {
		south.MustAs("eve", "fastn", "contact", "add", name, id, "--address", address)
		for _, protocol := range []string{"Echo", "Notes"} {
			r := south.RunAs("eve", "fastn", "call", name, protocol, `{"message":"x"}`)
			if r.Code != 4 {
				t.Errorf("eve calls %s of %s: %v", protocol, name, r)
			}
			answers = append(answers, r.Err)
		}
	}
	for _, a := range answers {
		if a != answers[0] {
			t.Errorf("the refusals differ: %q and %q", answers[0], a)
		}
	}
}

func removedContact(t *testing.T, north, south *nspawn.Machine) {
	north.MustAs("alice", "fastn", "contact", "remove", "bob")
	if r := south.RunAs("bob", "fastn", "call", "alice", "Echo", `{"message":"x"}`); r.Code != 4 {
		t.Errorf("bob was removed: %v", r)
	}
	ticket := north.MustAs("alice", "fastn", "invite", "--for", "bob")
	south.MustAs("bob", "fastn", "contact", "remove", "alice")
	if r := south.RunInput("bob", ticket, "fastn", "contact", "add", "alice", "-"); r.Code != 0 {
		t.Fatalf("%v", r)
	}
	callAcross(t, north, south)
}
