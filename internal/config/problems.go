package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Problem is one mistake in the file.
type Problem struct {
	File string
	// Line counts from 1; 0 if the mistake is not on one line.
	Line int
	// Key is the dotted key, empty for a mistake in the syntax.
	Key     string
	Message string
}

// String is "FILE:LINE: KEY: MESSAGE", as compilers have it.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Error holds every mistake found, in the order of the file; at least one.
type Error struct {
	Problems []Problem
}

// Error has one line per problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func errUnknown(near string) error {
	if near == "" {
		return errors.New("unknown key: fastn.toml(5) lists all keys")
	}
	return fmt.Errorf("unknown key: did you mean %s?", near)
}

func sortedNames(t map[string]any) []string { return slices.Sorted(maps.Keys(t)) }

// lineOfElement finds key inside the index-th table of the array of tables at
// path. The library keeps only the position of the last one, so this looks for
// the headers; where the text is laid out otherwise it is the array's line.
func lineOfElement(text []byte, path []string, index int, key string) int {
	header := "[[" + strings.Join(path, ".") + "]]"
	seen, headerLine := -1, 0
	for i, line := range strings.Split(string(text), "\n") {
		code, _, _ := strings.Cut(line, "#")
		code = strings.Join(strings.Fields(code), "")
		switch {
		case code == header:
			if seen == index {
				return headerLine
			}
			seen++
			headerLine = i + 1
		case seen == index && strings.HasPrefix(code, key+"="):
			return i + 1
		case seen == index && strings.HasPrefix(code, "["):
			return headerLine
		}
	}
	if seen == index {
		return headerLine
	}
	return lineOf(text, path)
}
