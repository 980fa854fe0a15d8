package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Scan checks that b is one JSON value that every reader understands alike:
// valid UTF-8, no duplicate keys in an object, no lone surrogates, nesting of
// at most MaxDepth, nothing behind the value. encoding/json lets the first
// three pass. The error tells the byte at which the fault lies.
func Scan(b []byte) error {
	s := scanner{b: b}
	if err := s.value(0); err != nil {
		return err
	}
	s.space()
	if s.i != len(b) {
		return s.fault("unexpected text after the value")
	}
	return nil
}

// field is one member of the outermost object of a line.
type field struct {
	key   string
	value []byte // JSON text, not copied
}

// scanObject is Scan for a line that must be an object; it returns its members.
func scanObject(b []byte) ([]field, error) {
	s := scanner{b: b}
	s.space()
	if s.i >= len(b) || b[s.i] != '{' {
		return nil, s.fault("expected the JSON object that a request is")
	}
	s.fields = make([]field, 0, 8)
	if err := s.value(0); err != nil {
		return s.fields, err
	}
	s.space()
	if s.i != len(b) {
		return s.fields, s.fault("unexpected text after the object")
	}
	return s.fields, nil
}

type scanner struct {
	b      []byte
	i      int
	fields []field // members at depth 1, collected if not nil
}

func (s *scanner) fault(format string, args ...any) error {
	return fmt.Errorf("%s at byte %d", fmt.Sprintf(format, args...), s.i)
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int) error {
	s.space()
	if s.i >= len(s.b) {
		return s.fault("unexpected end")
	}
	switch c := s.b[s.i]; {
	case c == '{':
		return s.object(depth + 1)
	case c == '[':
		return s.array(depth + 1)
	case c == '"':
		_, err := s.skipString()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	default:
		for _, word := range [...]string{"true", "false", "null"} {
			if rest := s.b[s.i:]; len(rest) >= len(word) && string(rest[:len(word)]) == word {
				s.i += len(word)
				return nil
			}
		}
		return s.fault("unexpected character %q", rune(c))
	}
}

func (s *scanner) object(depth int) error {
	if depth > MaxDepth {
		return s.fault("nested deeper than %d", MaxDepth)
	}
	s.i++
	// Small objects compare keys pairwise; a map is made for large ones.
	var few [8]string
	n := 0
	var many map[string]struct{}
	for {
		s.space()
		if s.i < len(s.b) && s.b[s.i] == '}' && n == 0 {
			s.i++
			return nil
		}
		if s.i >= len(s.b) || s.b[s.i] != '"' {
			return s.fault("expected a key")
		}
		key, err := s.str()
		if err != nil {
			return err
		}
		dup := false
		if many != nil {
			_, dup = many[key]
		} else {
			for _, k := range few[:n] {
				dup = dup || k == key
			}
		}
		if dup {
			return s.fault("duplicate key %q", Shorten(key))
		}
		switch {
		case many != nil:
			many[key] = struct{}{}
		case n < len(few):
			few[n] = key
		default:
			many = map[string]struct{}{key: {}}
			for _, k := range few {
				many[k] = struct{}{}
			}
		}
		if n < len(few) {
			n++
		}
		s.space()
		if s.i >= len(s.b) || s.b[s.i] != ':' {
			return s.fault("expected a colon")
		}
		s.i++
		s.space()
		start := s.i
		if err := s.value(depth); err != nil {
			return err
		}
		if depth == 1 && s.fields != nil {
			s.fields = append(s.fields, field{key, s.b[start:s.i]})
		}
		more, err := s.comma('}')
		if err != nil || !more {
			return err
		}
	}
}

func (s *scanner) array(depth int) error {
	if depth > MaxDepth {
		return s.fault("nested deeper than %d", MaxDepth)
	}
	s.i++
	s.space()
	if s.i < len(s.b) && s.b[s.i] == ']' {
		s.i++
		return nil
	}
	for {
		if err := s.value(depth); err != nil {
			return err
		}
		more, err := s.comma(']')
		if err != nil || !more {
			return err
		}
	}
}

// comma reads a comma (more) or the closing character.
func (s *scanner) comma(end byte) (more bool, err error) {
	s.space()
	if s.i < len(s.b) {
		switch s.b[s.i] {
		case ',':
			s.i++
			s.space()
			return true, nil
		case end:
			s.i++
			return false, nil
		}
	}
	return false, s.fault("expected a comma or %q", rune(end))
}

// str reads a string and returns it unescaped.
func (s *scanner) str() (string, error) {
	start := s.i
	escaped, err := s.skipString()
	if err != nil {
		return "", err
	}
	if !escaped {
		return string(s.b[start+1 : s.i-1]), nil
	}
	var out string
	if err := json.Unmarshal(s.b[start:s.i], &out); err != nil {
		return "", s.fault("bad string")
	}
	return out, nil
}

// skipString checks a string and tells whether it has escapes.
func (s *scanner) skipString() (escaped bool, err error) {
	s.i++
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return escaped, nil
		case c == '\\':
			escaped = true
			if err := s.escape(); err != nil {
				return true, err
			}
		case c < 0x20:
			return escaped, s.fault("control character in a string")
		case c < utf8.RuneSelf:
			s.i++
		default:
			r, n := utf8.DecodeRune(s.b[s.i:])
			if r == utf8.RuneError && n == 1 {
				return escaped, s.fault("not valid UTF-8")
			}
			s.i += n
		}
	}
	return escaped, s.fault("string without an end")
}

func (s *scanner) escape() error {
	if s.i+1 >= len(s.b) {
		return s.fault("string without an end")
	}
	if s.b[s.i+1] != 'u' {
		if strings.IndexByte(`"\/bfnrt`, s.b[s.i+1]) < 0 {
			return s.fault("bad escape")
		}
		s.i += 2
		return nil
	}
	r, ok := s.hex4(s.i + 2)
	if !ok {
		return s.fault("bad escape")
	}
	if !utf16.IsSurrogate(r) {
		s.i += 6
		return nil
	}
	if s.i+7 < len(s.b) && s.b[s.i+6] == '\\' && s.b[s.i+7] == 'u' {
		if low, ok := s.hex4(s.i + 8); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
			s.i += 12
			return nil
		}
	}
	return s.fault("lone surrogate in a string")
}

func (s *scanner) hex4(at int) (rune, bool) {
	if at+4 > len(s.b) {
		return 0, false
	}
	var r rune
	for _, c := range s.b[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (s *scanner) number() error {
	digits := func() bool {
		start := s.i
		for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
			s.i++
		}
		return s.i > start
	}
	if s.b[s.i] == '-' {
		s.i++
	}
	if s.i < len(s.b) && s.b[s.i] == '0' {
		s.i++
	} else if !digits() {
		return s.fault("bad number")
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		if !digits() {
			return s.fault("bad number")
		}
	}
	if s.i < len(s.b) && (s.b[s.i] == 'e' || s.b[s.i] == 'E') {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		if !digits() {
			return s.fault("bad number")
		}
	}
	return nil
}
