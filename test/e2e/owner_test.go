package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// addressesOfOthers: where alice says that a peer lives is hers; bob, who knows
// the same peer, is not told.
func addressesOfOthers(t *testing.T, m *nspawn.Machine) {
	const where = "/ip4/192.0.2.7/udp/4100/quic-v1"
	node := status(t, m).Node.ID // of another node nothing else is known either
	mutual := api.ContactAddArgs{Name: "mutual", ID: nobodysID, Address: where + "/p2p/" + node}
	hers := get[api.Contact](t, m, "alice", api.VerbContactAdd, mutual)
	if len(hers.Addresses) == 0 || len(hers.Nodes) == 0 {
		t.Fatalf("alice does not see the address that she gave: %+v", hers)
	}
	mutual.Address = ""
	get[api.Contact](t, m, "bob", api.VerbContactAdd, mutual)
	for _, c := range get[[]api.Contact](t, m, "bob", api.VerbContactList, struct{}{}) {
		if c.ID52 == nobodysID && len(c.Addresses)+len(c.Nodes) > 0 {
			t.Errorf("bob is told of alice's address: %+v", c)
		}
	}
	for _, user := range []string{"alice", "bob"} {
		get[struct{}](t, m, user, api.VerbContactRemove, api.NameArgs{Name: "mutual"})
	}
}

// session is one user's connection, line by line.
type session struct {
	*probe
	t *testing.T
}

func connect(t *testing.T, m *nspawn.Machine, user string) session {
	t.Helper()
	s := session{startProbe(t, m, user, "lines"), t}
	t.Cleanup(func() { s.stdin.Close(); s.cmd.Wait() })
	return s
}

func (s session) send(r api.Request) {
	s.t.Helper()
	line, err := json.Marshal(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.say(string(line))
}

// next returns the daemon's next line, which must have that id and status.
func (s session) next(id, status string) api.Response {
	s.t.Helper()
	line := s.line()
	var a api.Response
	if err := json.Unmarshal([]byte(line), &a); err != nil || a.ID == nil || *a.ID != id || a.Status != status {
		s.t.Fatalf("got %q, want the id %q and %q; %s", line, id, status, &s.errs)
	}
	return a
}

func (s session) incoming(id string) (in api.Incoming) {
	s.t.Helper()
	if err := json.Unmarshal(s.next(id, api.StatusIncoming).Data, &in); err != nil {
		s.t.Fatal(err)
	}
	return in
}

// callsOfOthers: to bob, a call and a stream that wait for alice's program are
// none, even if he learns their ids.
func callsOfOthers(t *testing.T, m *nspawn.Machine) {
	hers, caller := connect(t, m, "alice"), connect(t, m, "alice")
	hers.send(api.Request{ID: "L", Type: api.TypeListen, Protocol: "Tally"})
	hers.next("L", api.StatusOK)
	const missing = "5f0c1d1e-8a3b-4c7e-9a53-0d5b0d1c6a03"

	caller.send(api.Request{ID: "c", Type: api.TypeCall, Target: api.TargetSelf, Protocol: "Tally"})
	call := hers.incoming("L").Incoming
	caller.send(api.Request{ID: "again", Type: api.TypeCall, Target: api.TargetSelf, Protocol: "Tally"})
	second := hers.incoming("L").Incoming
	for _, typ := range []string{api.TypeReply, api.TypeAccept} {
		q := func(id string) question { return question{Request: api.Request{Type: typ, Incoming: id}} }
		a := ask(t, m, "bob", q(call), q(missing))
		if got, want := comparable(a[0], [2]object{}), comparable(a[1], [2]object{}); got != want || a[0].Code != api.CodeNotFound {
			t.Errorf("%s: bob is told of alice's call %s, and of a missing one %s", typ, got, want)
		}
	}
	// Bob's words did nothing: hers are taken, in any order.
	for i, id := range []string{second, call} {
		hers.send(api.Request{ID: "r", Type: api.TypeReply, Incoming: id, Data: json.RawMessage(`"hers"`)})
		hers.next("r", api.StatusOK)
		if a := caller.next([]string{"again", "c"}[i], api.StatusOK); string(a.Data) != `"hers"` {
			t.Errorf("alice's call was answered %s", a.Data)
		}
	}

	// A stream is accepted on any connection of the same user, so that the user is
	// all that counts.
	opener := connect(t, m, "alice")
	opener.send(api.Request{ID: "s", Type: api.TypeStream, Target: api.TargetSelf, Protocol: "Tally"})
	stream := hers.incoming("L").Incoming
	q := func(id string) question { return question{Request: api.Request{Type: api.TypeAccept, Incoming: id}} }
	a := ask(t, m, "bob", q(stream), q(missing))
	if got, want := comparable(a[0], [2]object{}), comparable(a[1], [2]object{}); got != want || a[0].Code != api.CodeNotFound {
		t.Errorf("accept: bob is told of alice's stream %s, and of a missing one %s", got, want)
	}
	if a := ask(t, m, "alice", q(stream))[0]; a.Status != api.StatusStreaming {
		t.Errorf("alice herself: %+v", a)
	}
}

// formerOwner: an identity moves from alice to bob while alice's program still
// listens for it.
func formerOwner(t *testing.T, m *nspawn.Machine) {
	const protocol = "Handover"
	id := get[api.Identity](t, m, "alice", api.VerbIdentityNew, api.NameArgs{Name: "handover"}).ID52
	listen := func(s session) {
		s.send(api.Request{ID: "L", Type: api.TypeListen, Protocol: protocol, From: id})
	}
	hers := connect(t, m, "alice")
	listen(hers)
	hers.next("L", api.StatusOK)
	m.MustAs("alice", "fastn", "id", "export", id, "/tmp/handover.pem")
	get[struct{}](t, m, "alice", api.VerbIdentityRemove, api.IdentityArgs{Identity: id})
	m.Must("chown", "bob", "/tmp/handover.pem")
	m.MustAs("bob", "fastn", "id", "import", "handover", "/tmp/handover.pem")

	// Nobody serves it for bob, as far as he is told.
	call := question{Request: api.Request{Type: api.TypeCall, Target: api.TargetSelf, From: id, Protocol: protocol}}
	if a := ask(t, m, "bob", call)[0]; a.Code != api.CodeProtocolUnavailable {
		t.Errorf("bob's call is answered %+v", a)
	}
	his := connect(t, m, "bob")
	listen(his)
	his.next("L", api.StatusOK)
	caller := connect(t, m, "bob")
	call.Request.ID = "c"
	caller.send(call.Request)
	in := his.incoming("L")
	his.send(api.Request{ID: "r", Type: api.TypeReply, Incoming: in.Incoming, Data: json.RawMessage(`"his"`)})
	his.next("r", api.StatusOK)
	if a := caller.next("c", api.StatusOK); string(a.Data) != `"his"` {
		t.Errorf("bob's call was answered %s", a.Data)
	}

	// Alice's program was told of nothing but the end: its connection is closed.
	if line := hers.line(); line != "" {
		t.Fatalf("alice's program was told %q", line)
	}
	if got := m.MustAs("alice", "fastn", "id", "--json"); strings.Contains(got, protocol) {
		t.Errorf("alice is shown as serving it: %s", got)
	}
	get[struct{}](t, m, "bob", api.VerbIdentityRemove, api.IdentityArgs{Identity: id})
}
