package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// shows tells whether a terminal only shows s.
func shows(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r != ' ' && !unicode.IsPrint(r) })
}

// FuzzVisible: nothing that others say moves a cursor, as text or as JSON.
func FuzzVisible(f *testing.F) {
	for _, s := range []string{"plain", "a\x1b[2Jb\r\n\t", "\xff\u009b\u202e\u2028\U000e0041", `{"a":"\u001b\"","b":[1e5,null]}`, "[\"\U0001f600\u202e\"]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := visible(s); !shows(got) {
			t.Errorf("%q is shown as %q", s, got)
		}
		var before, after any
		if json.Unmarshal([]byte(s), &before) != nil {
			return
		}
		var b bytes.Buffer
		escapeJSON(&b, []byte(s))
		if !shows(strings.Map(func(r rune) rune {
			if r == '\n' || r == '\r' || r == '\t' { // JSON's own space
				return ' '
			}
			return r
		}, b.String())) {
			t.Errorf("%q is shown as %q", s, b.String())
		}
		if err := json.Unmarshal(b.Bytes(), &after); err != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("%q became %q: %v", s, b.String(), err)
		}
	})
}

func FuzzPeriod(f *testing.F) {
	for _, s := range []string{"7d", "1.5d12h", "90s", "-1s", "1e300d", "nand", "infd", "0x1p3d", "d", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var p period
		if err := p.UnmarshalText([]byte(s)); err == nil && (time.Duration(p) < 0 || strings.HasPrefix(s, "-")) {
			t.Errorf("%q is %v", s, time.Duration(p))
		}
	})
}
