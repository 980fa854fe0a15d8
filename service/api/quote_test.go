package api_test

import (
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"/tmp/a-b_c.d": "/tmp/a-b_c.d", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'", "~": "'~'", "ä": "'ä'",
		"a\nb": `"a\nb"`, "a\x1b[2J": `"a\x1b[2J"`, "\xff": `"\xff"`,
	} {
		if got := api.ShellQuote(in); got != want {
			t.Errorf("ShellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}
