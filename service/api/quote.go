package api

import (
	"fmt"
	"strings"
)

// ShellQuote gives s as one word of a shell command, for hints that are pasted.
// One with control characters, which could fake a line of a log or move a cursor,
// is not for a shell: it comes with those escaped by Go's rules, as a word still.
func ShellQuote(s string) string {
	switch {
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }):
		s = fmt.Sprintf("%+q", s)
		s = s[1 : len(s)-1]
	case s != "" && !strings.ContainsFunc(s, needsQuotes):
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func needsQuotes(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_./:@%+,-", r))
}

// Instance is the instance that s names: an empty one is the default.
func Instance(s string) string {
	if s == "" {
		return DefaultInstance
	}
	return s
}

// ServiceName is what users call a protocol by: with its instance unless that is
// the default one.
func ServiceName(protocol, instance string) string {
	if Instance(instance) == DefaultInstance {
		return protocol
	}
	return protocol + " (instance " + instance + ")"
}

// GrantCommand is what the owner of protocol runs for who to use it, for hints: a
// peer may have chosen the names. instance may be empty.
func GrantCommand(who, protocol, instance string) string {
	return "fastn grant add " + instanceFlag(instance) + behindFlags(who, protocol)
}

// ListenCommand is what serves calls and streams of protocol, for hints as
// GrantCommand.
func ListenCommand(protocol, instance string) string {
	return "fastn listen " + instanceFlag(instance) + behindFlags(protocol)
}

// TakeCommand is what gives messages for protocol to a program CMD, for hints as
// GrantCommand.
func TakeCommand(protocol, instance string) string {
	words := behindFlags(protocol)
	if !strings.HasPrefix(words, "-- ") {
		words += " --"
	}
	return "fastn listen --messages " + instanceFlag(instance) + words + " CMD"
}

func instanceFlag(instance string) string {
	if Instance(instance) == DefaultInstance {
		return ""
	}
	return "--instance " + ShellQuote(instance) + " "
}

// behindFlags gives words as arguments of which none is taken for a flag.
func behindFlags(words ...string) string {
	flaglike := ""
	for i, w := range words {
		if strings.HasPrefix(w, "-") {
			flaglike = "-- "
		}
		words[i] = ShellQuote(w)
	}
	return flaglike + strings.Join(words, " ")
}
