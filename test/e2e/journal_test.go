package e2e

import (
	"encoding/json"
	"maps"
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
	ours := map[string]bool{}
	chosen := false
	for _, e := range entries(t, m, from) {
		if e["FASTN_FORGED"] != "" || e["MESSAGE"] == "forged" {
			t.Errorf("a field was forged: %v", e)
		}
		if e["_SYSTEMD_UNIT"] != "fastnd.service" || e["_EXE"] != "/usr/sbin/fastnd" {
			continue
		}
		for name, value := range e {
			if strings.HasPrefix(name, "FASTN_") {
				ours[name] = true
				chosen = chosen || strings.Contains(value, "FASTN_FORGED")
			}
		}
		if e["PRIORITY"] == "0" {
			t.Errorf("a priority was forged: %v", e)
		}
		if e["_SYSTEMD_SLICE"] != "fastn.slice" {
			t.Errorf("a line is not of fastn.slice: %v", e)
		}
	}
	t.Logf("fields in the journal of %s: %v", m.Must("hostname"), slices.Sorted(maps.Keys(ours)))
	if len(ours) == 0 {
		t.Error("the journal has no field of fastn's")
	}
	if !chosen {
		t.Errorf("no field of %s holds a chosen string: the test shows nothing", m.Must("hostname"))
	}
}

// cursor marks the present end of the journal.
func cursor(m *nspawn.Machine) string {
	m.Must("journalctl", "--sync")
	out := m.Must("journalctl", "--lines=0", "--show-cursor")
	return strings.TrimPrefix(out[strings.LastIndex(out, "-- cursor: "):], "-- cursor: ")
}

// entry is one record of the journal; a field that is not text is left out.
type entry map[string]string

// entries returns the whole journal since the mark. They are chosen from here:
// journalctl 252 loses the first one when a cursor and a match meet.
func entries(t *testing.T, m *nspawn.Machine, from string) []entry {
	t.Helper()
	m.Must("journalctl", "--sync")
	var list []entry
	for line := range strings.Lines(m.Must("journalctl", "--all", "--output=json", "--quiet", "--after-cursor="+from)) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("journalctl: %v: %q", err, line)
		}
		e := entry{}
		for name, value := range fields {
			if s, ok := value.(string); ok {
				e[name] = s
			}
		}
		list = append(list, e)
	}
	return list
}

// said returns the messages that fastnd logged under a message id since the mark.
func said(t *testing.T, m *nspawn.Machine, from, id string) string {
	t.Helper()
	var all []string
	for _, e := range entries(t, m, from) {
		if e["MESSAGE_ID"] == id && e["_SYSTEMD_UNIT"] == "fastnd.service" {
			all = append(all, e["MESSAGE"])
		}
	}
	return strings.Join(all, "\n")
}

// starts counts how often systemd started the daemon since the mark. On a busy
// machine either may be missing: systemd drops a message that journald does not
// take within 10 ms, so that the daemon's own first words count too.
func starts(t *testing.T, m *nspawn.Machine, from string) int {
	t.Helper()
	const unitStarting = "7d4958e842da4a758f6c1cdc7b36dcc5" // SD_MESSAGE_UNIT_STARTING
	told := 0
	lines, began := map[string]int{}, map[string]bool{} // by invocation
	for _, e := range entries(t, m, from) {
		if e["MESSAGE_ID"] == unitStarting && e["UNIT"] == "fastnd.service" {
			told++
		}
		if id := e["_SYSTEMD_INVOCATION_ID"]; id != "" && e["_SYSTEMD_UNIT"] == "fastnd.service" {
			lines[id]++
			began[id] = began[id] || e["MESSAGE"] == "serving" || strings.HasPrefix(e["MESSAGE"], "locked: ")
		}
	}
	maps.DeleteFunc(began, func(_ string, began bool) bool { return !began })
	if len(began) <= told {
		return told
	}
	for id := range began { // a reload says the same: then there are earlier lines
		all := m.Must("journalctl", "--all", "--output=json", "--quiet", "_SYSTEMD_INVOCATION_ID="+id)
		if strings.Count(all+"\n", "\n") > lines[id] {
			delete(began, id)
		}
	}
	return max(told, len(began))
}
