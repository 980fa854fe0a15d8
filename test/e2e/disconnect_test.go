package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// disconnectAll takes alice out of the group while she uses all that a connection
// can be used for; bob does the same and notices nothing.
func disconnectAll(t *testing.T, m *nspawn.Machine) {
	hers, his := useAll(t, m, "alice"), useAll(t, m, "bob")
	m.Must("gpasswd", "--delete", "alice", "fastn")
	defer m.Must("usermod", "--append", "--groups", "fastn", "alice")

	r := m.Run("fastn", "daemon", "disconnect", "alice")
	if r.Code != 0 || !strings.HasPrefix(r.Err, "cut 4 connections of alice\n") {
		t.Errorf("alice has four connections: %v", r)
	}
	if got := hers.caller.line(); !strings.HasPrefix(got, string(api.CodeOutcomeUnknown)+" ") {
		t.Errorf("the call ended with %q", got)
	}
	for what, s := range map[string]session{"listener": hers.server, "subscription": hers.events, "stream": hers.stream} {
		line := s.line()
		for echoOfOwnEnd(line) {
			line = s.line()
		}
		if line != "" {
			t.Errorf("the %s was told %q, want its end", what, line)
		}
	}
	refusedNow := m.RunAs("alice", "fastn", "call", "self", "Echo", `{"message":"x"}`)
	const refused = "fastn: cannot reach the fastn daemon at /run/fastn/daemon.sock: permission denied\nhint: "
	if refusedNow.Code != 3 || !strings.HasPrefix(refusedNow.Err, refused) || !strings.Contains(refusedNow.Err, `"adduser alice fastn", then log in again`) {
		t.Errorf("alice connects again: %v", refusedNow)
	}
	// Her program that ran before keeps the group, as the hint says and mends.
	hers.caller.say("Echo")
	hers.caller.expect("sent")
	hers.caller.expect("ok")
	hint := regexp.MustCompile(`(?m)^hint: .*"(pkill [^"]*)" ends them$`).FindStringSubmatch(r.Err)
	if hint == nil {
		t.Fatalf("no hint about programs that run already: %v", r)
	}
	m.Must("sh", "-c", hint[1])
	if line := hers.caller.line(); line != "" {
		t.Errorf("alice's program goes on: %q", line)
	}
	his.goOn()
}

// echoOfOwnEnd tells a line about another connection of the same user, which may
// have been cut first: its call is cancelled, its listener has ended.
func echoOfOwnEnd(line string) bool {
	return strings.Contains(line, `"cancel":true`) || strings.Contains(line, api.EventListenEnded)
}

// uses are one user's connections of every kind.
type uses struct {
	t                      *testing.T
	caller                 *probe
	server, events, stream session
}

func useAll(t *testing.T, m *nspawn.Machine, user string) uses {
	t.Helper()
	u := uses{t: t, events: connect(t, m, user), stream: connect(t, m, user)}
	u.caller, u.server = waiting(t, m, user)
	u.events.send(api.Request{ID: "E", Type: api.TypeSubscribe})
	u.events.next("E", api.StatusOK)
	u.stream.send(api.Request{ID: "S", Type: api.TypeStream, Target: api.TargetSelf, Protocol: "Echo"})
	u.stream.next("S", api.StatusStreaming)
	u.stream.say("echoed")
	u.stream.expect("echoed")
	return u
}

// goOn checks that nothing was ended.
func (u uses) goOn() {
	u.t.Helper()
	u.stream.say("still there")
	u.stream.expect("still there")
	u.server.send(api.Request{ID: "H", Type: api.TypeHello})
	u.server.next("H", api.StatusOK)
	u.events.send(api.Request{ID: "H", Type: api.TypeHello})
	u.events.next("H", api.StatusOK)
}
