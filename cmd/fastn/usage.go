package main

import (
	"cmp"
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"

	"github.com/fastn-stack/fastnd/service/api"
)

// usageFrom turns a parser's error into ours: the suggestion becomes the hint.
func usageFrom(err error) error {
	path, group := "fastn", true
	var siblings []string
	var names []string // that may be meant
	var parsed *kong.Context
	if p, ok := errors.AsType[*kong.ParseError](err); ok && p.Context != nil {
		parsed = p.Context
		if n := parsed.Selected(); n != nil {
			path, group = n.FullPath(), len(n.Children) > 0
			siblings = besides(n, parsed.Args)
			names = append(childNames(n), siblings...)
		}
	}
	text, mean, found := strings.Cut(err.Error(), ", did you mean ")
	word, extra := strings.CutPrefix(text, "unexpected argument ")
	e := api.Errorf(api.CodeBadRequest, "%s", plainUsage(text, group || extra && siblings != nil))
	flag, unknownFlag := strings.CutPrefix(text, "unknown flag ")
	of := path // whose help lists the commands
	if siblings != nil {
		of = path[:strings.LastIndexByte(path, ' ')]
	}
	switch near := cmp.Or(synonym(word, names), api.Nearest(word, siblings)); {
	case extra && (path == "fastn inbox list" || path == "fastn outbox list") && beginsID(word):
		return e.WithHint(`"%s show %s" shows a message`, strings.TrimSuffix(path, " list"), api.ShellQuote(word))
	case extra && near != "":
		return e.WithHint(`did you mean "%s"? see "%s --help"`, near, of)
	case extra && siblings != nil:
		return e.WithHint(`see "%s --help"`, of)
	case unknownFlag && path == "fastn send" && given(parsed, "text") == "" && !(found && strings.HasPrefix(flag, "--")):
		return e.WithHint(`a text that begins with "-" stands behind --: "fastn send %s -- %s"`,
			api.ShellQuote(cmp.Or(given(parsed, "target"), "TARGET")), api.ShellQuote(dashed(parsed.Args, flag)))
	case extra && path == "fastn send":
		return e.WithHint(`put quotes around a text of several words, as in 'hello there'; see "%s --help"`, path)
	}
	if found {
		return e.WithHint(`did you mean %s see "%s --help"`, mean, path)
	}
	return e.WithHint(`see "%s --help"`, path)
}

// besides are the commands that might have been meant instead of n, which is run if
// none of them is named; nil if it was named itself, as far as that can be seen.
func besides(n *kong.Node, args []string) []string {
	if n.Parent == nil || n.Parent.DefaultCmd != n {
		return nil
	}
	words := ownWords(args)
	if group := slices.Index(words, n.Parent.Name); group >= 0 && slices.Contains(words[group:], n.Name) {
		return nil
	}
	return childNames(n.Parent)
}

func childNames(n *kong.Node) (names []string) {
	for _, child := range n.Children {
		names = append(names, child.Name)
	}
	return names
}

// synonym is the one of names that is meant by word in other programs, or "".
func synonym(word string, names []string) string {
	var meant []string
	switch word {
	case "rm", "del", "delete":
		meant = []string{"remove", "cancel"}
	case "get", "cat", "view":
		meant = []string{"show"}
	}
	for _, name := range meant {
		if slices.Contains(names, name) {
			return name
		}
	}
	return ""
}

// beginsID tells whether word can be the beginning of a message's id.
func beginsID(word string) bool {
	return len(word) >= minShort && strings.Trim(strings.ToLower(word), "0123456789abcdef-") == ""
}

// given is the argument of that name on a command line that is wrong behind it, or "".
func given(c *kong.Context, name string) string {
	for _, p := range c.Path {
		if p.Positional != nil && p.Positional.Name == name {
			return c.Value(p).String()
		}
	}
	return ""
}

// dashed is the word of args in which flag was found, as it stands in a hint.
func dashed(args []string, flag string) string {
	const longest = 64
	long := strings.HasPrefix(flag, "--")
	for _, word := range ownWords(args) {
		if !strings.HasPrefix(word, "-") || strings.HasPrefix(word, "--") != long || !strings.Contains(word, flag[1:]) {
			continue
		}
		if len(word) <= longest && !strings.ContainsFunc(word, func(r rune) bool { return r == '"' || !unicode.IsPrint(r) }) {
			return word
		}
	}
	return "TEXT"
}

// plainUsage says what the parser says without types and types' names. group
// tells that a command was expected where the fault is.
func plainUsage(text string, group bool) string {
	if word, ok := strings.CutPrefix(text, "unexpected argument "); ok && group {
		return `unknown command "` + word + `"`
	}
	for _, r := range []struct{ from, to string }{
		{`^expected "(<.*)"$`, `missing: $1`},
		{`^\[?<([a-z]+)>(?: \.\.\.\])? must be one of (.*) but got "(.*)"$`, `unknown $1 "$3": it is one of $2`},
		{`^(--[a-z-]+) must be one of (.*) but got "(.*)"$`, `$1 "$3": it is one of $2`},
		{`expected a valid [0-9]+ bit u?int but got`, `a whole number is needed, not`},
		{`bool value must be .* but got`, `it takes no value, not`},
		{`expected [a-z]+ value but got "EOL" \(<EOL>\)$`, `a value is missing`},
		{`expected ([a-z]+) value but got`, `a value is needed, not`},
	} {
		if m := regexp.MustCompile(r.from); m.MatchString(text) {
			text = m.ReplaceAllString(text, r.to)
			if before, list, ok := strings.Cut(text, ": it is one of "); ok {
				text = before + ": it is one of " + strings.NewReplacer(`"`, "", ",", ", ").Replace(list)
			}
			return text
		}
	}
	return text
}
