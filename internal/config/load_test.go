package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

const peerID = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"

func TestEmptyFileIsDefault(t *testing.T) {
	got, err := Parse(strings.NewReader("# nothing\n[p2p]\n"), "f")
	if err != nil || !reflect.DeepEqual(got, Default()) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if Default().P2P.Port != DefaultPort || DefaultPerUser().P2P.Port != 0 {
		t.Error("the default ports are wrong")
	}
}

// Every key is set to something that is not its default, and arrives.
func TestEveryKey(t *testing.T) {
	text := `
[p2p]
port = 4711
listen = ["192.0.2.7", "fe80::1%eth0"]
announce = ["/ip4/203.0.113.5/udp/4711/quic-v1", "/dns/host.example/tcp/4711"]
tcp = true
quic = false
[[p2p.static_peers]]
id = "` + peerID + `"
addresses = ["/ip6/2001:db8::1/tcp/4100"]
[log]
level = "debug"
[identity]
delegation_ttl = "1d12h"
[messages]
keep_read = "30d"
[budgets]
per_uid_connections = 1
per_uid_requests = 2
per_uid_streams = 3
per_uid_buffered_bytes = "4MiB"
per_uid_queued_messages = 4
per_uid_queued_bytes = "5MiB"
per_uid_stored_messages = 15
per_peer_requests = 6
per_peer_streams = 7
per_peer_unread_messages = 8
per_peer_unread_bytes = 9437184
per_peer_stored_messages = 16
node_message_bytes = "1TiB"
per_peer_refused_opens = 11
per_node_refused_opens = 12
per_address_refused_opens = 13
stream_window_initial = "128KiB"
stream_window_max = "256 KiB"
stalled_streams = 14
node_connections = 99
node_buffered_bytes = "5MiB"
`
	got, err := Parse(strings.NewReader(text), "f")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		P2P: P2P{
			Port: 4711, Listen: []string{"192.0.2.7", "fe80::1%eth0"},
			Announce:    []string{"/ip4/203.0.113.5/udp/4711/quic-v1", "/dns/host.example/tcp/4711"},
			TCP:         true,
			StaticPeers: []StaticPeer{{ID: peerID, Addresses: []string{"/ip6/2001:db8::1/tcp/4100"}}},
		},
		Log:      Log{Level: "debug"},
		Identity: Identity{DelegationTTL: 3 * Day / 2},
		Messages: Messages{KeepRead: 30 * Day},
		Budgets: Budgets{
			PerUIDConnections: 1, PerUIDRequests: 2, PerUIDStreams: 3, PerUIDBufferedBytes: 4 * MiB, PerUIDQueuedMessages: 4,
			PerUIDQueuedBytes: 5 * MiB, PerUIDStoredMessages: 15, PerPeerRequests: 6, PerPeerStreams: 7, PerPeerUnreadMessages: 8,
			PerPeerUnreadBytes: 9 * MiB, PerPeerStoredMessages: 16, NodeMessageBytes: TiB, PerPeerRefusedOpens: 11, PerNodeRefusedOpens: 12,
			PerAddressRefusedOpens: 13, StreamWindowInitial: 128 * KiB, StreamWindowMax: 256 * KiB,
			StalledStreams: 14, NodeConnections: 99, NodeBufferedBytes: 5 * MiB,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	def := Default()
	for _, k := range allKeys() {
		if k.name != "p2p.tcp" && reflect.DeepEqual(k.get(&got), k.get(&def)) {
			t.Errorf("%s: this test does not set it", k.name)
		}
	}
}

// Each mistake is reported with its line, key and reason.
func TestRefused(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"typing mistake", "[p2p]\n\nprot = 1", "f:3: p2p.prot: unknown key: did you mean p2p.port?"},
		{"missing table", "port = 1", "f:1: port: unknown key: did you mean p2p.port?"},
		{"wrong table", "\n[log]\ndelegation_ttl = '1d'", "f:3: log.delegation_ttl: unknown key: did you mean identity.delegation_ttl?"},
		{"misspelt table", "[budget]\nper_uid_streams = 1", "f:1: budget: unknown key: did you mean budgets?"},
		{"dotted", "log.levle = 'info'", "f:1: log.levle: unknown key: did you mean log.level?"},
		{"swapped letters in other case", "[LOG]", "f:1: LOG: unknown key: did you mean log?"},
		{"nothing near", "colour = 'blue'", "f:1: colour: unknown key: fastn.toml(5) lists all keys"},
		{"deeper than known", "[log.level]\nx = 1", `f:1: log.level: must be one of "debug", "info", "warn", "error", not a table`},
		{"value for a table", "p2p = 1", "f:1: p2p: must be a table, [p2p], not the number 1"},
		{"array for a table", "[[p2p]]\nport = 1", "f:1: p2p: must be a table, [p2p], not a list of tables"},
		{"string for number", "[p2p]\nport = '4100'", `f:2: p2p.port: must be a whole number, not the string "4100"`},
		{"float for number", "[p2p]\nport = 4100.0", "f:2: p2p.port: must be a whole number, not the number 4100"},
		{"number for bool", "[p2p]\ntcp = 1", "f:2: p2p.tcp: must be true or false, not the number 1"},
		{"port too large", "[p2p]\nport = 65536", "f:2: p2p.port: 65536 is out of range: allowed is 0 to 65535"},
		{"port negative", "[p2p]\nport = -1", "f:2: p2p.port: -1 is out of range: allowed is 0 to 65535"},
		{"zero budget", "[budgets]\nper_uid_streams = 0", "f:2: budgets.per_uid_streams: 0 is out of range: allowed is 1 to 16777216"},
		{"size without unit is bytes", "[budgets]\nper_uid_queued_bytes = 1", "f:2: budgets.per_uid_queued_bytes: 1B is out of range: allowed is 1MiB to 1TiB"},
		{"negative size", "[budgets]\nper_uid_queued_bytes = -1", "f:2: budgets.per_uid_queued_bytes: -1 is negative"},
		{"decimal unit", "[budgets]\nper_uid_queued_bytes = '1GB'", `f:2: budgets.per_uid_queued_bytes: "1GB" is not a size: the unit must be B, KiB, MiB, GiB or TiB`},
		{"size overflow", "[budgets]\nper_uid_queued_bytes = '9000000000000000000KiB'", `f:2: budgets.per_uid_queued_bytes: "9000000000000000000KiB" is too large`},
		{"bool for size", "[budgets]\nper_uid_queued_bytes = true", `f:2: budgets.per_uid_queued_bytes: must be a size such as "256MiB", not true`},
		{"duration without unit", "[identity]\ndelegation_ttl = '7'", `f:2: identity.delegation_ttl: "7" is not a length of time: write it as "7d", "36h" or "90s"`},
		{"duration as number", "[identity]\ndelegation_ttl = 7", `f:2: identity.delegation_ttl: must be a length of time such as "7d", not the number 7`},
		{"duration too long", "[identity]\ndelegation_ttl = '31d'", "f:2: identity.delegation_ttl: 31d is out of range: allowed is 1h to 30d"},
		{"level", "[log]\nlevel = 'verbose'", `f:2: log.level: "verbose" is not allowed: use one of "debug", "info", "warn", "error"`},
		{"no listen address", "[p2p]\nlisten = []", "f:2: p2p.listen: the list must hold at least 1"},
		{"host name to listen on", "[p2p]\nlisten = ['localhost']", `f:2: p2p.listen: "localhost" is not an IP address`},
		{"multicast", "[p2p]\nlisten = ['ff02::1']", `f:2: p2p.listen: "ff02::1" is a multicast address`},
		{"twice", "[p2p]\nlisten = ['::', '::']", `f:2: p2p.listen: "::" is listed twice`},
		{"not a list", "[p2p]\nlisten = '::'", `f:2: p2p.listen: must be a list of strings, not the string "::"`},
		{"both transports off", "[p2p]\ntcp = false\nquic = false", "f:2: p2p.tcp: p2p.tcp and p2p.quic are both false: at least one must be true"},
		{"windows crossed", "[budgets]\nstream_window_initial = '8MiB'", "f:2: budgets.stream_window_initial: budgets.stream_window_max (4MiB) must not be less than budgets.stream_window_initial (8MiB)"},
		{"second peer", "[[p2p.static_peers]]\nid = '" + peerID + "'\naddresses = ['/ip4/1.2.3.4/tcp/1']\n[[ p2p.static_peers ]] # b\nid = 'x'\n", `f:5: p2p.static_peers.id: "x" is not a node id: the other side sees its own with fastn status`},
		{"first peer of two", "[[p2p.static_peers]]\nid = 'x'\n[[p2p.static_peers]]\nid = '" + peerID + "'\n", `f:2: p2p.static_peers.id: "x" is not a node id: the other side sees its own with fastn status`},
		{"peer without addresses", "\n[[p2p.static_peers]]\nid = '" + peerID + "'\n[log]\n", "f:2: p2p.static_peers.addresses: is missing: it must be a list of multiaddrs"},
		{"peer's key", "[[p2p.static_peers]]\nid = '" + peerID + "'\nadresses = []\n", "f:3: p2p.static_peers.adresses: unknown key: did you mean addresses?"},
		{"one peer twice", "p2p.static_peers = [{id='" + peerID + "',addresses=['/ip4/1.2.3.4/tcp/1']},{id='" + peerID + "',addresses=['/ip4/1.2.3.4/tcp/1']}]", `f:1: p2p.static_peers.id: "` + peerID + `" is listed twice`},
		{"syntax", "[p2p]\nport = \n", "f:2: expected value but found '\\n' instead"},
		{"key twice", "[p2p]\nport = 1\nport = 2\n", "f:3: Key 'p2p.port' has already been defined."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(strings.NewReader(tt.text), "f")
			if err == nil {
				t.Fatal("accepted")
			}
			if err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
			if !reflect.DeepEqual(got, Config{}) {
				t.Error("a refused file gave a configuration")
			}
		})
	}
}

func TestAllProblemsInOrder(t *testing.T) {
	_, err := Parse(strings.NewReader("[p2p]\nport = -1\ntcp = 0\n[budgets]\nx = 1\n[log]\nlevel = 1\n"), "f")
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%T: %v", err, err)
	}
	var lines []int
	for _, p := range e.Problems {
		lines = append(lines, p.Line)
	}
	if !reflect.DeepEqual(lines, []int{2, 3, 5, 7}) {
		t.Errorf("lines %v in\n%v", lines, err)
	}
}

func TestManyProblemsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "k%d = 1\n", i)
	}
	_, err := Parse(strings.NewReader(b.String()), "f")
	if n := strings.Count(err.Error(), "\n") + 1; n != maxProblems {
		t.Errorf("%d problems reported, not %d", n, maxProblems)
	}
}

// Files made to be slow are refused, or read, in no time and little memory.
func TestHostileShapes(t *testing.T) {
	line := func(n int, s string) string { return strings.Repeat(s, n) }
	for name, text := range map[string]string{
		"one deep key":     line(100_000, "a.") + "b = 1",
		"many deep keys":   line(60, line(2000, "a.")+"b = 1\n"),
		"nested lists":     "a = " + line(maxFile/4, "["),
		"nested by lines":  "a = " + line(maxFile/4, "[\n"),
		"many tables":      line(maxFile/24, "[[p2p.static_peers]]\n"),
		"long unknown key": line(3000, "k") + " = 1",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			if _, err := Parse(strings.NewReader(text), "f"); err == nil {
				t.Error("accepted")
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a folder was accepted")
	}
	path := filepath.Join(dir, "fastn.toml")
	if err := os.WriteFile(path, []byte("log.level = 'warn'"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadOver(DefaultPerUser(), path)
	if err != nil || c.Log.Level != "warn" || c.P2P.Port != 0 {
		t.Errorf("got %+v, %v", c, err)
	}
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "larger than 256KiB") {
		t.Errorf("a huge file: %v", err)
	}
}

// A base that is used again must not see what an earlier file set.
func TestBaseIsNotChanged(t *testing.T) {
	base := Default()
	if _, err := ParseOver(base, strings.NewReader("p2p.listen = ['192.0.2.1', '192.0.2.2']"), "f"); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(base, Default()) {
		t.Errorf("base is now %+v", base)
	}
}

func TestReloadable(t *testing.T) {
	for text, want := range map[string]struct{ changed, restart []string }{
		"":                    {},
		"log.level = 'debug'": {[]string{"log.level"}, nil},
		"p2p.port = 1\nbudgets.per_uid_streams = 1":                                         {[]string{"p2p.port", "budgets.per_uid_streams"}, []string{"p2p.port"}},
		"p2p.announce=['/dns/a.example/tcp/1']":                                             {[]string{"p2p.announce"}, nil},
		"p2p.quic = false\np2p.listen=['::']":                                               {[]string{"p2p.listen", "p2p.quic"}, []string{"p2p.listen", "p2p.quic"}},
		"budgets.stalled_streams = 1\nbudgets.stream_window_max = '8MiB'":                   {[]string{"budgets.stream_window_max", "budgets.stalled_streams"}, []string{"budgets.stream_window_max", "budgets.stalled_streams"}},
		"[[p2p.static_peers]]\nid = '" + peerID + "'\naddresses = ['/dns/a.example/tcp/1']": {[]string{"p2p.static_peers"}, nil},
	} {
		c, err := Parse(strings.NewReader(text), "f")
		if err != nil {
			t.Fatal(err)
		}
		if got := Changed(Default(), c); !reflect.DeepEqual(got, want.changed) {
			t.Errorf("%q: changed %v, want %v", text, got, want.changed)
		}
		if got := Reloadable(Default(), c); !reflect.DeepEqual(got, want.restart) {
			t.Errorf("%q: restart %v, want %v", text, got, want.restart)
		}
		if Changed(c, c) != nil || Reloadable(c, c) != nil {
			t.Errorf("%q: unchanged, and yet listed", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[p2p]\nport = 4100\nlisten = ['::']\n")
	f.Add("[[p2p.static_peers]]\nid = '" + peerID + "'\naddresses = ['/ip4/1.2.3.4/udp/1/quic-v1/p2p/" + peerID + "']\n")
	f.Add("[budgets]\nper_uid_queued_bytes = '1GiB'\nidentity.delegation_ttl = '7d'\n")
	f.Add("a.b.c = [[1, {x = 1979-05-27}], \"\\u0000\"]\n\"\" = 1\n'p2p.port' = 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(strings.NewReader(text), "f")
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(e.Problems) == 0 || len(e.Problems) > maxProblems+1 {
				t.Fatalf("%T %v", err, err)
			}
			for _, p := range e.Problems {
				if p.Line < 0 || p.Line > strings.Count(text, "\n")+1 || p.Message == "" {
					t.Fatalf("%+v in %q", p, text)
				}
			}
			return
		}
		// What was accepted keeps every promise of the table.
		if c.P2P.Port < 0 || c.P2P.Port > 65535 || len(c.P2P.Listen) == 0 || !c.P2P.TCP && !c.P2P.QUIC ||
			c.Budgets.StreamWindowMax < c.Budgets.StreamWindowInitial || c.Budgets.PerUIDConnections < 1 {
			t.Fatalf("accepted %q as %+v", text, c)
		}
	})
}

// A pipe has no end that anybody would wait for; a device has none at all.
func TestLoadTakesOnlyPlainFiles(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "fastn.toml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero", t.TempDir()} {
		_, err := Load(path)
		if e, ok := errors.AsType[*Error](err); !ok || !strings.Contains(e.Error(), path) || !strings.Contains(e.Error(), "not a plain file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
