package api

import (
	"strings"
	"testing"
)

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"flaw", "Lawn", 2}, {"same", "same", 0}, {"swap", "sawp", 1}} {
		if got := distance(tc.a, tc.b); got != tc.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"call", "contact.list", "p2p.port"}
	for name, want := range map[string]string{"cal": "call", "port": "p2p.port", "list": "contact.list", "elephant": "",
		strings.Repeat("call", 20): ""} {
		if got := Nearest(name, known); got != want {
			t.Errorf("%.20q is taken for %q, want %q", name, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	fits := strings.Repeat("x", longestShown)
	if Shorten(fits) != fits || Shorten(fits+"x") != fits+"…" {
		t.Errorf("shortened to %q and %q", Shorten(fits), Shorten(fits+"x"))
	}
}

func TestNewUUID(t *testing.T) {
	a, b := NewUUID(), NewUUID()
	if a == b || !ValidUUID(a) || a[14] != '4' || !strings.ContainsRune("89ab", rune(a[19])) {
		t.Errorf("made %s and %s", a, b)
	}
}
