package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain text":         "plain text",
		"grüße 日本":           "grüße 日本",
		"a\x1b[2Jb":          `a\x1b[2Jb`,
		"two\nlines\ttab":    `two\nlines\ttab`,
		"bell\a\x7f":         `bell\x07\x7f`,
		"c1 \u009b31m":       `c1 \u009b31m`,
		"bidi \u202egnp.exe": `bidi \u202egnp.exe`,
		"bad \xff utf-8":     `bad \xff utf-8`,
		"line \u2028 sep":    `line \u2028 sep`,
		"tag \U000e0041":     `tag \U000e0041`,
	} {
		if got := visible(in); got != want {
			t.Errorf("visible(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestVisibleText(t *testing.T) {
	for in, want := range map[string]string{
		"a\tb":                "a\tb",
		`a\tb`:                `a\tb`,
		`C:\Users\x\u00`:      `C:\Users\x\u00`,
		"\x1b[2J":             `\x1b[2J`,
		`\x1b[2J`:             `\\x1b[2J`,
		`\\x1b \u202e`:        `\\\\x1b \\u202e`,
		"\\\x1b":              `\\\x1b`,
		"\\\u202e\\":          `\\\u202e\`,
		`back\`:               `back\`,
		"\\\t\U000e0041 \xff": "\\\t" + `\U000e0041 \xff`,
	} {
		if got := visibleText(in); got != want {
			t.Errorf("visibleText(%q) = %q, want %q", in, got, want)
		}
	}
}

// No two texts are shown alike.
func TestVisibleTextIsUnambiguous(t *testing.T) {
	parts := []string{"\\", "\x1b", "x1b", "\t", "t", "x", "1", "b"}
	from := map[string]string{}
	var try func(text string, depth int)
	try = func(text string, depth int) {
		shown := visibleText(text)
		if other, ok := from[shown]; ok && other != text {
			t.Fatalf("%q and %q are both shown as %q", text, other, shown)
		}
		from[shown] = text
		if depth == 0 {
			return
		}
		for _, p := range parts {
			try(text+p, depth-1)
		}
	}
	try("", 5)
}

func TestExpandTabs(t *testing.T) {
	for in, want := range map[string]string{"\t": "        ", "ab\tc": "ab      c", "12345678\tx": "12345678        x", "日\tx": "日      x", "": ""} {
		if got := expandTabs(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// What a terminal is shown means the same JSON value and holds nothing that a
// terminal acts upon.
func TestEscapeJSONKeepsTheValue(t *testing.T) {
	for _, in := range []string{
		`{"a":"plain"}`, "\"c1 \u009b31m\"", "[\"\u202e\u2066\"]", "\"\u007f\"", "\"tag \U000e0041\"", "\"smile \U0001f600 \u65e5\"",
	} {
		var b bytes.Buffer
		escapeJSON(&b, []byte(in))
		var before, after any
		if err := json.Unmarshal([]byte(in), &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b.Bytes(), &after); err != nil {
			t.Fatalf("%q became %q: %v", in, b.String(), err)
		}
		was, _ := json.Marshal(before)
		is, _ := json.Marshal(after)
		if !bytes.Equal(was, is) {
			t.Errorf("%q became %q, another value", in, b.String())
		}
		if visible(b.String()) != b.String() {
			t.Errorf("%q became %q, which is not all visible", in, b.String())
		}
	}
}

func TestTableAligns(t *testing.T) {
	var b bytes.Buffer
	(&app{}).table(&b, []string{"NAME", "STATE"}, [][]string{{"bob", "up"}, {"grüße-long", ""}, {"x\ny", "z"}})
	want := "NAME        STATE\nbob         up\ngrüße-long  -\nx\\ny        z\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestPairsAlign(t *testing.T) {
	var b bytes.Buffer
	pairs(&b, "a", "1\n2", "long", "\x1b")
	if want := "a     1\n      2\nlong  \\x1b\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

// What is quoted is read back as one word by those who paste hints.
func TestQuotedWordsAreReadBack(t *testing.T) {
	for _, in := range []string{"/tmp/a-b_c.d", "", "a b", "it's", "$x"} {
		if words := shellWords(t, "fastn "+api.ShellQuote(in)); len(words) != 2 || words[1] != in {
			t.Errorf("ShellQuote(%q) is read back as %q", in, words)
		}
	}
}

// shellWords splits a line as a shell does: quotes, and the command ends at an
// operator.
func shellWords(t *testing.T, line string) []string {
	t.Helper()
	var words []string
	var word strings.Builder
	var quote rune
	in, escaped := false, false
	end := func() {
		if in {
			words = append(words, word.String())
		}
		word.Reset()
		in = false
	}
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == '\\':
			escaped, in = true, true
		case r == ' ':
			end()
		case strings.ContainsRune("|<>;&", r):
			end()
			return words
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if quote != 0 {
		t.Errorf("a quote is not closed: %s", line)
	}
	end()
	return words
}

func TestShortAddressesSayEachOnce(t *testing.T) {
	got := shortAddresses([]string{"/ip4/192.0.2.1/tcp/1/p2p/A", "/ip4/192.0.2.1/tcp/1/p2p/B", "/ip4/192.0.2.1/tcp/2/p2p/A"})
	if want := "/ip4/192.0.2.1/tcp/1, /ip4/192.0.2.1/tcp/2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
