package main

import (
	"errors"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/fastn-stack/fastnd/service/api"
)

// usageFrom turns a parser's error into ours: the suggestion becomes the hint.
func usageFrom(err error) error {
	path, group := "fastn", true
	var siblings []string
	if p, ok := errors.AsType[*kong.ParseError](err); ok && p.Context != nil {
		if n := p.Context.Selected(); n != nil {
			path, group = n.FullPath(), len(n.Children) > 0
			siblings = besides(n)
		}
	}
	text, mean, found := strings.Cut(err.Error(), ", did you mean ")
	word, extra := strings.CutPrefix(text, "unexpected argument ")
	e := api.Errorf(api.CodeBadRequest, "%s", plainUsage(text, group || extra && siblings != nil))
	switch near := api.Nearest(word, siblings); {
	case extra && near != "":
		return e.WithHint(`did you mean "%s"? see "%s --help"`, near, path[:strings.LastIndexByte(path, ' ')])
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
func besides(n *kong.Node) (names []string) {
	if n.Parent == nil || n.Parent.DefaultCmd != n {
		return nil
	}
	for _, other := range n.Parent.Children {
		names = append(names, other.Name)
	}
	return names
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
