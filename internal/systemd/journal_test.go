package systemd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fastn-stack/fastnd/internal/testutil"
)

// fakeJournal is a datagram socket in place of journald's.
type fakeJournal struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newFakeJournal(t *testing.T) *fakeJournal {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &fakeJournal{t: t, conn: conn, path: path}
}

// log opens a handler that writes to the fake.
func (j *fakeJournal) log(level slog.Leveler) (*slog.Logger, *journalWriter) {
	j.t.Helper()
	w, err := openJournal(j.path, "fastnd")
	if err != nil {
		j.t.Fatal(err)
	}
	j.t.Cleanup(func() { w.Close() })
	return slog.New(newJournalHandler(level, w)), w
}

// next is the next record, as journald would store it.
func (j *fakeJournal) next() map[string][]string {
	j.t.Helper()
	buf := make([]byte, 1<<20)
	j.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := j.conn.Read(buf)
	if err != nil {
		j.t.Fatal(err)
	}
	fields, err := decodeNative(buf[:n])
	if err != nil {
		j.t.Fatalf("%v in %q", err, buf[:n])
	}
	return fields
}

// decodeNative reads journald's native protocol the way journald does.
func decodeNative(b []byte) (map[string][]string, error) {
	fields := map[string][]string{}
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			return nil, errors.New("no line feed at the end")
		}
		name, value, plain := strings.Cut(string(line), "=")
		if !plain {
			if len(rest) < 8 {
				return nil, errors.New("no length")
			}
			size := binary.LittleEndian.Uint64(rest)
			rest = rest[8:]
			if size+1 > uint64(len(rest)) || rest[size] != '\n' {
				return nil, fmt.Errorf("wrong length %d", size)
			}
			value, rest = string(rest[:size]), rest[size+1:]
		}
		fields[name] = append(fields[name], value)
		b = rest
	}
	return fields, nil
}

func expect(t *testing.T, got map[string][]string, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if v := got[name]; len(v) != 1 || v[0] != value {
			t.Errorf("%s = %q, want %q", name, v, value)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("unexpected %s = %q", name, got[name])
		}
	}
}

func TestJournalFields(t *testing.T) {
	testutil.LeakCheck(t)
	j := newFakeJournal(t)
	log, _ := j.log(slog.LevelInfo)
	log.Debug("below the level")
	log.With("user", "alice").WithGroup("peer").With("id", 7).Warn("slow",
		slog.Group("path", slog.String("kind", "direct QUIC"), slog.Duration("rtt", 3*time.Millisecond)),
		"error", errors.New("no route"), slog.Group("", slog.Bool("inline", true)), slog.Attr{},
		MsgClockSkew.Attr())
	expect(t, j.next(), map[string]string{
		"MESSAGE":               `slow user=alice peer.id=7 peer.path.kind="direct QUIC" peer.path.rtt=3ms peer.error="no route" peer.inline=true peer.message_id=` + string(MsgClockSkew),
		"PRIORITY":              "4",
		"SYSLOG_IDENTIFIER":     "fastnd",
		"FASTN_USER":            "alice",
		"FASTN_PEER_ID":         "7",
		"FASTN_PEER_PATH_KIND":  "direct QUIC",
		"FASTN_PEER_PATH_RTT":   "3ms",
		"FASTN_PEER_ERROR":      "no route",
		"FASTN_PEER_INLINE":     "true",
		"FASTN_PEER_MESSAGE_ID": string(MsgClockSkew),
	})
}

func TestMessageID(t *testing.T) {
	j := newFakeJournal(t)
	log, _ := j.log(slog.LevelInfo)
	log.Error("locked", MessageIDKey, MsgKeystoreLocked)
	expect(t, j.next(), map[string]string{
		"MESSAGE": "locked", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "fastnd", "MESSAGE_ID": string(MsgKeystoreLocked),
	})
	// The id of a peer's message is a field like any other, whatever it says.
	log.Info("received", MessageIDKey, string(MsgKeystoreLocked))
	expect(t, j.next(), map[string]string{
		"MESSAGE": "received message_id=" + string(MsgKeystoreLocked), "PRIORITY": "6",
		"SYSLOG_IDENTIFIER": "fastnd", "FASTN_MESSAGE_ID": string(MsgKeystoreLocked),
	})
}

func TestLevels(t *testing.T) {
	j := newFakeJournal(t)
	level := new(slog.LevelVar)
	level.Set(slog.LevelDebug)
	log, _ := j.log(level)
	for l, want := range map[slog.Level]string{
		slog.LevelDebug: "7", slog.LevelInfo: "6", slog.LevelInfo + 2: "5",
		slog.LevelWarn: "4", slog.LevelError: "3", slog.LevelError + 4: "2",
	} {
		log.Log(t.Context(), l, "x")
		if got := j.next()["PRIORITY"]; len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v", l, got)
		}
	}
	level.Set(slog.LevelError)
	if log.Enabled(t.Context(), slog.LevelWarn) {
		t.Error("the level did not change")
	}
}

// hostile are strings that a peer might choose.
var hostile = []string{
	"a\nMESSAGE_ID=93f61d7fce6541fcba80f0b3734539d6", "a\n_UID=0\n", "\n\nPRIORITY=0\n", "=", "A=B", "\n",
	"MESSAGE\n\x05\x00\x00\x00\x00\x00\x00\x00fake\n", "\x00", "\xff\xfe", "a\rb", "\x1b[31m", "..\u202e", "",
	strings.Repeat("x", 100_000), strings.Repeat("é", 10_000), strings.Repeat("\n", 50_000),
	"\n\x00\x00\x00\x00\x00\x00\x00\x00\nFASTN_USER=root",
}

func TestPeerForgesNoField(t *testing.T) {
	j := newFakeJournal(t)
	log, _ := j.log(slog.LevelInfo)
	valid := regexp.MustCompile(`^FASTN_[A-Z0-9_]{0,58}$`)
	check := func(what string, got map[string][]string) {
		for name, values := range got {
			if !utf8.ValidString(strings.Join(values, "")) {
				t.Errorf("%s: %s is not UTF-8: journalctl would show a blob", what, name)
			}
			switch name {
			case "MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER":
				if len(values) != 1 {
					t.Errorf("%s: %d times %s", what, len(values), name)
				}
			default:
				if !valid.MatchString(name) {
					t.Errorf("%s: forged %s = %q", what, name, values)
				}
			}
		}
		if p := got["PRIORITY"]; len(p) != 1 || p[0] != "6" {
			t.Errorf("%s: priority %v", what, p)
		}
	}
	for _, h := range hostile {
		what := fmt.Sprintf("%.20q", h)
		log.Info("text", "peer", h)
		got := j.next()
		check("value "+what, got)
		if v := got["FASTN_PEER"]; len(v) != 1 {
			t.Errorf("value %s: FASTN_PEER = %q", what, v)
		}
		if len(got) > 5 {
			t.Errorf("value %s: %d fields", what, len(got))
		}
		if m := got["MESSAGE"][0]; strings.ContainsFunc(m, isControl) {
			t.Errorf("value %s: control characters in the message", what)
		}
		log.Info("text", h, "v")
		check("key "+what, j.next())
		log.WithGroup(h).Info("text", h, h)
		check("group "+what, j.next())
		log.Info(h)
		check("message "+what, j.next())
		log.Info("text", "err", errors.New(h), "any", map[string]string{h: h})
		check("error "+what, j.next())
	}
}

func TestBounds(t *testing.T) {
	j := newFakeJournal(t)
	log, w := j.log(slog.LevelInfo)
	log.Info("long", "v", strings.Repeat("é", maxValue))
	got := j.next()
	if v := got["FASTN_V"][0]; len(v) > maxValue || len(v) < maxValue-3 || strings.Contains(v, "\uFFFD") {
		t.Errorf("value of %d bytes", len(v))
	}
	if got["FASTN_TRUNCATED"] == nil {
		t.Error("truncation is not told")
	}
	var attrs []any
	for i := range 1000 {
		attrs = append(attrs, slog.String(fmt.Sprint("k", i), strings.Repeat("\n", maxValue)))
	}
	log.Info("many", attrs...)
	got = j.next()
	if len(got) > maxFields+8 || got["FASTN_TRUNCATED"] == nil {
		t.Errorf("%d fields", len(got))
	}
	if n := w.dropped.Load(); n != 0 {
		t.Errorf("%d dropped", n)
	}
}

// panicky is a value whose method fails, as any log value may.
type panicky struct{}

func (panicky) String() string { panic("no") }

func TestValueThatPanics(t *testing.T) {
	j := newFakeJournal(t)
	log, _ := j.log(slog.LevelInfo)
	log.Info("text", "v", panicky{}, "nil", (*net.OpError)(nil))
	if got := j.next(); got["FASTN_V"] == nil {
		t.Errorf("got %v", got)
	}
}

// WithAttrs must not let two children of one logger share memory.
func TestChildrenDoNotShare(t *testing.T) {
	j := newFakeJournal(t)
	log, _ := j.log(slog.LevelInfo)
	parent := log
	for range 40 { // so that its buffers have grown and have room to spare
		parent = parent.With("a", "1")
	}
	one, two := parent.With("b", "one"), parent.With("c", "two")
	one.Info("x")
	if got := j.next(); got["FASTN_B"] == nil || got["FASTN_C"] != nil || !strings.HasSuffix(got["MESSAGE"][0], " b=one") {
		t.Errorf("the first child logs %v", got)
	}
	two.Info("x")
	if got := j.next(); got["FASTN_C"] == nil || got["FASTN_B"] != nil || !strings.HasSuffix(got["MESSAGE"][0], " c=two") {
		t.Errorf("the second child logs %v", got)
	}
}
