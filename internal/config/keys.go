package config

import (
	"fmt"
	"reflect"
	"slices"
)

// KeyDoc describes one key of fastn.toml, as the man page and the shipped file
// must tell it.
type KeyDoc struct {
	// Name is the dotted path, such as "budgets.per_uid_streams".
	Name string
	// Type is what the value must be, with its range, in words.
	Type string
	// Default is the value as TOML.
	Default string
	// Doc is one or two sentences for the administrator.
	Doc string
	// Restart tells that a changed value needs a restart, not just a reload.
	Restart bool
}

// Keys lists every key, in the order of the man page.
func Keys() []KeyDoc {
	specs := allKeys()
	def := Default()
	docs := make([]KeyDoc, len(specs))
	for i, s := range specs {
		docs[i] = KeyDoc{Name: s.name, Type: s.typ, Doc: s.doc, Restart: s.restart, Default: tomlValue(s.get(&def))}
	}
	return docs
}

// Changed names the keys that differ between old and new, in the order of
// [Keys].
func Changed(old, new Config) []string {
	return differing(old, new, func(spec) bool { return true })
}

// Reloadable names those of [Changed] that take effect only after a restart; it
// is empty when a reload applies everything.
func Reloadable(old, new Config) []string {
	return differing(old, new, func(s spec) bool { return s.restart })
}

func differing(old, new Config, counts func(spec) bool) []string {
	var names []string
	for _, s := range allKeys() {
		if counts(s) && !reflect.DeepEqual(s.get(&old), s.get(&new)) {
			names = append(names, s.name)
		}
	}
	return names
}

// spec is what the program needs to know of a key.
type spec struct {
	name    string
	typ     string
	doc     string
	restart bool
	// set stores a decoded TOML value, or says why not.
	set func(*Config, any) error
	// get reads the value back, normalised for comparison.
	get func(*Config) any
}

// needsRestart marks a key whose change a reload cannot apply.
func (s spec) needsRestart() spec {
	s.restart = true
	return s
}

func intKey(name string, field func(*Config) *int, least, most int, doc string) spec {
	return spec{
		name: name,
		typ:  fmt.Sprintf("whole number from %d to %d", least, most),
		doc:  doc,
		get:  func(c *Config) any { return *field(c) },
		set: func(c *Config, v any) error {
			n, ok := v.(int64)
			if !ok {
				return wrongType("a whole number", v)
			}
			if n < int64(least) || n > int64(most) {
				return fmt.Errorf("%d is out of range: allowed is %d to %d", n, least, most)
			}
			*field(c) = int(n)
			return nil
		},
	}
}

func sizeKey(name string, field func(*Config) *Size, least, most Size, doc string) spec {
	return spec{
		name: name,
		typ:  fmt.Sprintf("size from %s to %s", least, most),
		doc:  doc,
		get:  func(c *Config) any { return *field(c) },
		set: func(c *Config, v any) error {
			size, err := asSize(v)
			if err != nil {
				return err
			}
			if size < least || size > most {
				return fmt.Errorf("%s is out of range: allowed is %s to %s", size, least, most)
			}
			*field(c) = size
			return nil
		},
	}
}

func asSize(v any) (Size, error) {
	switch v := v.(type) {
	case string:
		return ParseSize(v)
	case int64:
		if v < 0 {
			return 0, fmt.Errorf("%d is negative", v)
		}
		return Size(v), nil
	}
	return 0, wrongType(`a size such as "256MiB"`, v)
}

func durationKey(name string, field func(*Config) *Duration, least, most Duration, doc string) spec {
	return spec{
		name: name,
		typ:  fmt.Sprintf("length of time from %s to %s", least, most),
		doc:  doc,
		get:  func(c *Config) any { return *field(c) },
		set: func(c *Config, v any) error {
			text, ok := v.(string)
			if !ok {
				return wrongType(`a length of time such as "7d"`, v)
			}
			d, err := ParseDuration(text)
			if err != nil {
				return err
			}
			if d < least || d > most {
				return fmt.Errorf("%s is out of range: allowed is %s to %s", d, least, most)
			}
			*field(c) = d
			return nil
		},
	}
}

func boolKey(name string, field func(*Config) *bool, doc string) spec {
	return spec{
		name: name, typ: "true or false", doc: doc,
		get: func(c *Config) any { return *field(c) },
		set: func(c *Config, v any) error {
			b, ok := v.(bool)
			if !ok {
				return wrongType("true or false", v)
			}
			*field(c) = b
			return nil
		},
	}
}

func choiceKey(name string, field func(*Config) *string, choices []string, doc string) spec {
	return spec{
		name: name, typ: "one of " + oneOf(choices), doc: doc,
		get: func(c *Config) any { return *field(c) },
		set: func(c *Config, v any) error {
			text, ok := v.(string)
			if !ok {
				return wrongType("one of "+oneOf(choices), v)
			}
			if !slices.Contains(choices, text) {
				return fmt.Errorf("%s is not allowed: use one of %s", show(text), oneOf(choices))
			}
			*field(c) = text
			return nil
		},
	}
}

// listKey reads an array of strings, each of which check must accept.
func listKey(name, typ string, field func(*Config) *[]string, least int, check func(string) error, doc string) spec {
	return spec{
		name: name, typ: typ, doc: doc,
		get: func(c *Config) any { return append([]string{}, *field(c)...) },
		set: func(c *Config, v any) error {
			items, err := asStrings(v, check)
			if err != nil {
				return err
			}
			if len(items) < least {
				return fmt.Errorf("the list must hold at least %d", least)
			}
			*field(c) = items
			return nil
		},
	}
}

func asStrings(v any, check func(string) error) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, wrongType("a list of strings", v)
	}
	if len(list) > maxListItems {
		return nil, fmt.Errorf("the list holds %d entries: allowed are %d", len(list), maxListItems)
	}
	items := make([]string, 0, len(list))
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, wrongType("a list of strings", e)
		}
		if err := check(s); err != nil {
			return nil, err
		}
		if slices.Contains(items, s) {
			return nil, fmt.Errorf("%s is listed twice", show(s))
		}
		items = append(items, s)
	}
	return items, nil
}
