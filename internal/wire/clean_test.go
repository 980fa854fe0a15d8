package wire

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzClean: whatever a peer writes becomes valid, printable and short.
func FuzzClean(f *testing.F) {
	f.Add("a\x1b[31m\xff\u202e…", 5)
	f.Add(strings.Repeat("☃", 400), 500)
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = 10 + (most&0xff)*4
		got := clean(s, most)
		if len(got) > most || !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\x1b\r\n\u202e\u2028") {
			t.Errorf("%q became %q", s, got)
		}
	})
}
