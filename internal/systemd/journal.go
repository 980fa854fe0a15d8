package systemd

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of one record. A datagram must fit the socket's send buffer (208 KiB
// by default), and a peer must not fill the journal with one value.
const (
	maxFieldName = 64 // journald drops fields with longer names
	maxValue     = 16 << 10
	maxFields    = 64
	maxRecord    = 96 << 10
)

// fieldPrefix keeps our fields apart from those journald and others define.
const fieldPrefix = "FASTN_"

// journalHandler encodes records for journald's native protocol
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/). Every attribute becomes a
// field FASTN_<NAME>; MESSAGE is the record's text with the attributes behind
// it, because journalctl shows nothing else by default.
type journalHandler struct {
	level  slog.Leveler
	out    *journalWriter
	groups []string
	attrs  entry
}

func newJournalHandler(level slog.Leveler, out *journalWriter) *journalHandler {
	return &journalHandler{level: level, out: out}
}

// Enabled implements [slog.Handler].
func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs implements [slog.Handler].
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = h.attrs.clone()
	for _, a := range attrs {
		c.attrs.add(h.groups, a)
	}
	return &c
}

// WithGroup implements [slog.Handler].
func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.groups = append(append([]string{}, h.groups...), name)
	return &c
}

// Handle implements [slog.Handler]. It never waits for the journal.
func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	e := h.attrs.clone()
	r.Attrs(func(a slog.Attr) bool {
		e.add(h.groups, a)
		return true
	})
	h.out.enqueue(e.encode(h.out.identifier, r.Level, r.Message))
	return nil
}

// entry collects the attributes of one record in both of their forms.
type entry struct {
	id     MessageID
	fields []byte
	count  int
	text   []byte
	cut    bool
}

func (e *entry) clone() entry {
	c := *e
	c.fields = append([]byte(nil), e.fields...)
	c.text = append([]byte(nil), e.text...)
	return c
}

// add takes an attribute under the names of its groups; groups nest.
func (e *entry) add(groups []string, a slog.Attr) {
	v := a.Value.Resolve()
	if a.Key == "" && v.Kind() != slog.KindGroup {
		if v.Equal(slog.Value{}) {
			return // slog's way to say "no attribute"
		}
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			groups = append(append([]string{}, groups...), a.Key)
		}
		for _, sub := range v.Group() {
			e.add(groups, sub)
		}
		return
	}
	if id, ok := v.Any().(MessageID); ok && a.Key == MessageIDKey && len(groups) == 0 {
		e.id = id
		return
	}
	path := append(append([]string{}, groups...), a.Key)
	value, cut := bound(valueText(v))
	if e.count >= maxFields || len(e.fields)+len(value) > maxRecord {
		e.cut = true
		return
	}
	e.count++
	e.cut = e.cut || cut
	e.fields = appendField(e.fields, fieldName(path), value)
	e.text = append(e.text, ' ')
	e.text = append(e.text, plain(strings.Join(path, "."))...)
	e.text = append(e.text, '=')
	e.text = append(e.text, plain(value)...)
}

// encode is the datagram.
func (e *entry) encode(identifier string, level slog.Level, message string) []byte {
	text, cut := bound(message + string(e.text))
	b := make([]byte, 0, len(e.fields)+len(text)+256)
	b = appendField(b, "MESSAGE", text)
	b = appendField(b, "PRIORITY", strconv.Itoa(priority(level)))
	b = appendField(b, "SYSLOG_IDENTIFIER", identifier)
	if e.id != "" {
		b = appendField(b, "MESSAGE_ID", string(e.id))
	}
	if e.cut || cut {
		b = appendField(b, fieldPrefix+"TRUNCATED", "1")
	}
	return append(b, e.fields...)
}

// appendField writes one field. A value with a line feed, or any other control
// character, is written with its length, so that it can never be read as the
// end of the field and the start of another.
func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	if strings.IndexFunc(value, isControl) < 0 {
		b = append(b, '=')
	} else {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	}
	b = append(b, value...)
	return append(b, '\n')
}

// fieldName is FASTN_ and the path in capitals, at most 64 bytes of [A-Z0-9_].
func fieldName(path []string) string {
	b := []byte(fieldPrefix)
	for _, r := range strings.Join(path, "_") {
		switch {
		case r >= 'a' && r <= 'z':
			r -= 'a' - 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		default:
			r = '_'
		}
		if len(b) == maxFieldName {
			break
		}
		b = append(b, byte(r))
	}
	return string(b)
}

func valueText(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().Format(time.RFC3339Nano)
	case slog.KindAny:
		return anyText(v.Any())
	}
	return v.String()
}

// anyText survives values whose methods panic, as fmt does.
func anyText(v any) string { return fmt.Sprintf("%+v", v) }

// bound cuts a value at maxValue, between runes, and makes it valid UTF-8,
// without which journalctl shows it as a blob.
func bound(s string) (text string, cut bool) {
	if len(s) > maxValue {
		s, cut = cutBetweenRunes(s), true
	}
	if s = strings.ToValidUTF8(s, "\uFFFD"); len(s) > maxValue { // what that put in is longer
		s, cut = cutBetweenRunes(s), true
	}
	return s, cut
}

// cutBetweenRunes gives the first maxValue bytes of s, less half a rune.
func cutBetweenRunes(s string) string {
	s = s[:maxValue]
	for len(s) > 0 {
		if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n != 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}

// plain quotes s if it could be mistaken for more than one word.
func plain(s string) string {
	quote := func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || isControl(r) || !strconv.IsPrint(r) }
	if s == "" || strings.ContainsFunc(s, quote) {
		return strconv.Quote(s)
	}
	return s
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// priority maps levels to those of syslog(3).
func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError+4:
		return 2 // critical
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l > slog.LevelInfo:
		return 5 // notice
	case l == slog.LevelInfo:
		return 6
	}
	return 7
}
