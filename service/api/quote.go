package api

import (
	"fmt"
	"strings"
)

// ShellQuote gives s as one word of a shell command, for hints that are pasted.
// One with control characters, which could fake a line of a log or move a cursor,
// is not for a shell: it comes with those escaped by Go's rules.
func ShellQuote(s string) string {
	switch {
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }):
		return fmt.Sprintf("%+q", s)
	case s != "" && !strings.ContainsFunc(s, needsQuotes):
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func needsQuotes(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_./:@%+,-", r))
}
