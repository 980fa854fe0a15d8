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
	if p, ok := errors.AsType[*kong.ParseError](err); ok && p.Context != nil {
		if n := p.Context.Selected(); n != nil {
			path, group = n.FullPath(), len(n.Children) > 0
		}
	}
	text, mean, found := strings.Cut(err.Error(), ", did you mean ")
	e := api.Errorf(api.CodeBadRequest, "%s", plainUsage(text, group))
	if found {
		return e.WithHint(`did you mean %s see "%s --help"`, mean, path)
	}
	return e.WithHint(`see "%s --help"`, path)
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
