package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// forgery is what a peer or a local program could hope to have taken for fields
// of its own, or for a line of somebody else's.
const forgery = "Evil\nFASTN_FORGED=1\nPRIORITY=0\nMESSAGE=forged\nFASTN_UID=0="

func journalFields(t *testing.T, north, south *nspawn.Machine) {
	for _, m := range []*nspawn.Machine{north, south} {
		m.Must("systemctl", "restart", "fastnd") // with the log level of the changed file
	}
	from := map[*nspawn.Machine]string{north: cursor(north), south: cursor(south)}
	callAcross(t, north, south)
	hello, err := json.Marshal(api.HelloArgs{Client: forgery, Version: api.Version})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(map[string]string{"message": "x", forgery: forgery})
	if err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []string{forgery, "Evil=1", "FASTN_FORGED=1"} {
		ask(t, south, "bob",
			question{Request: api.Request{Type: api.TypeHello, Data: hello}},
			question{Request: api.Request{Type: api.TypeCall, Target: "alice", Protocol: protocol, Data: payload}},
			question{Request: api.Request{Type: api.TypeCall, Target: "alice", Protocol: "Echo", Instance: protocol, Data: payload}},
			question{Request: api.Request{Type: api.TypeStream, Target: "alice", Protocol: protocol, Data: payload}})
	}
	for _, m := range []*nspawn.Machine{north, south} {
		checkJournal(t, m, from[m])
	}
}

func checkJournal(t *testing.T, m *nspawn.Machine, from string) {
	t.Helper()
	m.Must("journalctl", "--sync")
	if r := m.Run("journalctl", "--quiet", "--output=json", "FASTN_FORGED=1"); strings.TrimSpace(r.Out) != "" {
		t.Errorf("a field was forged: %v", r)
	}
	if r := m.Run("journalctl", "--quiet", "--output=json", "MESSAGE=forged"); strings.TrimSpace(r.Out) != "" {
		t.Errorf("a message was forged: %v", r)
	}
	ours := map[string]bool{}
	chosen := false
	for line := range strings.Lines(m.Must("journalctl", "--unit=fastnd", "--output=json", "--all", "--after-cursor="+from) + "\n") {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) != nil {
			continue
		}
		if fields["_UID"] == "0" { // systemd's own lines about the unit
			continue
		}
		for name, value := range fields {
			if strings.HasPrefix(name, "FASTN_") {
				ours[name] = true
				s, _ := value.(string)
				chosen = chosen || strings.Contains(s, "FASTN_FORGED")
			}
		}
		if fields["PRIORITY"] == "0" {
			t.Errorf("a priority was forged: %s", line)
		}
		if fields["_SYSTEMD_SLICE"] != "fastn.slice" {
			t.Errorf("a line is not of fastn.slice: %s", line)
		}
	}
	names := make([]string, 0, len(ours))
	for n := range ours {
		names = append(names, n)
	}
	slices.Sort(names)
	t.Logf("fields in the journal of %s: %v", m.Must("hostname"), names)
	if len(names) == 0 {
		t.Error("the journal has no field of fastn's")
	}
	if !chosen {
		t.Errorf("no field of %s holds a chosen string: the test shows nothing", m.Must("hostname"))
	}
}
