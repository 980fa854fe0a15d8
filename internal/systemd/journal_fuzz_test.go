package systemd

import (
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzRecord: whatever a peer or a client gets into a record's names, values and
// text, journald reads the fields that were meant, with names of ours.
func FuzzRecord(f *testing.F) {
	f.Add("group", "key", "value", "text")
	f.Add("", "", "", "")
	f.Add("a\nMESSAGE=x", "__REALTIME_TIMESTAMP", "b\nPRIORITY=0", "c\nd")
	f.Add("\xff", strings.Repeat("a\xff", maxValue/2), strings.Repeat("a\xff", maxValue/2), "x")
	f.Add("ß", "message_id", "\xff\x00\x7f", strings.Repeat("é", maxValue))
	f.Fuzz(func(t *testing.T, group, key, value, text string) {
		var e entry
		e.add([]string{group}, slog.String(key, value))
		e.add(nil, slog.Group(group, slog.Any(value, text)))
		fields, err := decodeNative(e.encode("fastnd", slog.LevelWarn, text))
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range fields {
			switch own := strings.HasPrefix(name, fieldPrefix); {
			case own && (len(name) > maxFieldName || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != ""):
				t.Errorf("field %q", name)
			case !own && (len(values) > 1 || name != "MESSAGE" && name != "PRIORITY" && name != "SYSLOG_IDENTIFIER"):
				t.Errorf("field %q: %q", name, values)
			}
			for _, v := range values {
				if len(v) > maxValue || !utf8.ValidString(v) {
					t.Errorf("%s has %d bytes, UTF-8: %t", name, len(v), utf8.ValidString(v))
				}
			}
		}
		if fields["PRIORITY"][0] != "4" || fields["SYSLOG_IDENTIFIER"][0] != "fastnd" {
			t.Errorf("%v", fields)
		}
	})
}
