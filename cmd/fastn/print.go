package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fastn-stack/fastnd/service/api"
)

// visible makes every character seen that could move a cursor, change the
// direction of text or hide: control and format characters and bytes that are
// not UTF-8 become escapes. What peers and files say is printed through it.
func visible(s string) string {
	if plainText(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == ' ' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		s = s[n:]
	}
	return b.String()
}

// visibleText is visible for texts that people read whole: a tab, which leaves no line,
// stays, and what was a backslash can be told from an escape: in front of what looks
// like one, or is one, it is doubled.
func visibleText(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		i := strings.IndexAny(s, "\\\t")
		if i < 0 {
			break
		}
		b.WriteString(visible(s[:i]))
		if s[i] == '\t' {
			b.WriteByte('\t')
			s = s[i+1:]
			continue
		}
		n := i
		for n < len(s) && s[n] == '\\' {
			n++
		}
		b.WriteString(s[i:n])
		if looksEscaped(s[n:]) {
			b.WriteString(s[i:n])
		}
		s = s[n:]
	}
	return b.String() + visible(s)
}

// looksEscaped tells that s begins as an escape of visible does behind its backslash,
// or with what becomes one.
func looksEscaped(s string) bool {
	if s == "" || s[0] == '\t' {
		return false
	}
	_, n := utf8.DecodeRuneInString(s)
	if first := visible(s[:n]); first != s[:n] {
		return true
	}
	for mark, digits := range map[byte]int{'x': 2, 'u': 4, 'U': 8} {
		if s[0] == mark && len(s) > digits && strings.Trim(s[1:1+digits], "0123456789abcdef") == "" {
			return true
		}
	}
	return false
}

// expandTabs puts spaces in the place of tabs, for a terminal whose columns are counted.
func expandTabs(s string) string {
	const stop = 8
	var b strings.Builder
	width := 0
	for i, part := range strings.Split(s, "\t") {
		if i > 0 {
			b.WriteString(strings.Repeat(" ", stop-width%stop))
			width += stop - width%stop
		}
		b.WriteString(part)
		width += textWidth(part)
	}
	return b.String()
}

func plainText(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// printJSON writes one JSON value and a newline. A terminal gets the same
// value with what it might act upon escaped; others get the text as it came.
func (a *app) printJSON(raw json.RawMessage) error {
	if len(raw) == 0 {
		raw = json.RawMessage("null")
	}
	var b bytes.Buffer
	if isTerminal(a.std.Out) {
		escapeJSON(&b, raw)
	} else {
		b.Write(raw)
	}
	b.WriteByte('\n')
	return a.write(&b)
}

// escapeJSON copies JSON text. Characters beyond ASCII stand only in strings,
// where an escape means the same.
func escapeJSON(b *bytes.Buffer, raw []byte) {
	for len(raw) > 0 {
		r, n := utf8.DecodeRune(raw)
		switch {
		case r >= 0x10000 && !unicode.IsPrint(r):
			r -= 0x10000
			fmt.Fprintf(b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		case r >= 0x7f && !unicode.IsPrint(r), r == utf8.RuneError:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			b.Write(raw[:n])
		}
		raw = raw[n:]
	}
}

func (a *app) printValue(v any) error {
	text, err := api.Marshal(v)
	if err != nil {
		return err
	}
	return a.printJSON(text)
}

// style wraps text in an SGR sequence, on a terminal only.
func (a *app) style(on bool, sgr, text string) string {
	if !on {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

// pairs appends "key  value" lines; a value's further lines are indented.
func pairs(b *bytes.Buffer, kv ...string) {
	width := 0
	for i := 0; i < len(kv); i += 2 {
		width = max(width, len(kv[i]))
	}
	for i := 0; i+1 < len(kv); i += 2 {
		for n, value := range strings.Split(kv[i+1], "\n") {
			key := kv[i]
			if n > 0 {
				key = ""
			}
			fmt.Fprintf(b, "%-*s  %s\n", width, key, visible(value))
		}
	}
}

func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// rtt shows microseconds as milliseconds.
func rtt(micros int64) string {
	if micros <= 0 {
		return ""
	}
	return fmt.Sprintf("%.2f ms", float64(micros)/1000)
}

func yesNo(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// once is list without what stood in it before.
func once(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
