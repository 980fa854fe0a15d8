package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/fastn-stack/fastnd/service/api"
)

// Bounds of the file, whose real size is a few KiB. Without the second one a
// single dotted key of many parts takes the library minutes and gigabytes.
const (
	maxFile = 256 << 10
	maxLine = 4 << 10
)

// maxProblems bounds how many mistakes are reported at once.
const maxProblems = 20

// Load reads the file at path over [Default]. A file that does not exist is an
// error that wraps [io/fs.ErrNotExist]; all other mistakes are an [*Error].
func Load(path string) (Config, error) { return LoadOver(Default(), path) }

// LoadOver is [Load] with other values for the keys the file leaves out.
func LoadOver(base Config, path string) (Config, error) {
	// Before it is opened: who opens a named pipe waits for who writes to it. Only whoever
	// may write the configuration could put one there in between.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return Config{}, &Error{Problems: []Problem{{File: path, Message: "not a plain file: put one in its place"}}}
	}
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the configuration: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the configuration: %w", err)
	}
	defer f.Close()
	return ParseOver(base, f, path)
}

// Parse reads TOML from r over [Default]; name stands for the file in errors.
func Parse(r io.Reader, name string) (Config, error) { return ParseOver(Default(), r, name) }

// ParseOver is [Parse] with other values for the keys the text leaves out.
// base is not changed. On an error the Config is the zero value.
func ParseOver(base Config, r io.Reader, name string) (Config, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the configuration %s: %w", name, err)
	}
	if p, ok := tooLarge(text); ok {
		p.File = name
		return Config{}, &Error{Problems: []Problem{p}}
	}
	var doc map[string]any
	if _, err := toml.Decode(string(text), &doc); err != nil {
		return Config{}, &Error{Problems: []Problem{syntaxProblem(name, err)}}
	}
	p := parser{file: name, text: text, cfg: base, keys: allKeys()}
	p.table(nil, doc)
	p.together()
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b Problem) int { return a.Line - b.Line })
		return Config{}, &Error{Problems: p.problems}
	}
	return p.cfg, nil
}

func tooLarge(text []byte) (p Problem, ok bool) {
	if len(text) > maxFile {
		return Problem{Message: "the file is larger than " + Size(maxFile).String()}, true
	}
	number := 0
	for line := range bytes.Lines(text) {
		if number++; len(line) > maxLine {
			return Problem{Line: number, Message: "the line is longer than " + Size(maxLine).String()}, true
		}
	}
	return Problem{}, false
}

func syntaxProblem(name string, err error) Problem {
	p := Problem{File: name, Message: err.Error()}
	if pe, ok := errors.AsType[toml.ParseError](err); ok {
		p.Line, p.Message = pe.Position.Line, pe.Message
	}
	return p
}

// parser carries one reading of one file.
type parser struct {
	file     string
	text     []byte
	cfg      Config
	keys     []spec
	problems []Problem
}

// table walks one TOML table whose dotted path is at.
func (p *parser) table(at []string, t map[string]any) {
	for _, name := range sortedNames(t) {
		if len(p.problems) >= maxProblems {
			return
		}
		path := append(slices.Clone(at), name)
		p.entry(path, t[name])
	}
}

func (p *parser) entry(path []string, v any) {
	dotted := strings.Join(path, ".")
	if i := slices.IndexFunc(p.keys, func(s spec) bool { return s.name == dotted }); i >= 0 {
		if err := p.keys[i].set(&p.cfg, v); err != nil {
			p.refuse(path, err)
		}
		return
	}
	if !p.isTable(dotted) {
		p.refuse(path, errUnknown(api.Nearest(dotted, p.names())))
		return
	}
	sub, ok := v.(map[string]any)
	if !ok {
		p.refuse(path, wrongType("a table, ["+dotted+"]", v))
		return
	}
	p.table(path, sub)
}

// together checks what no key can check alone.
func (p *parser) together() {
	if len(p.problems) > 0 {
		return
	}
	if !p.cfg.P2P.TCP && !p.cfg.P2P.QUIC {
		p.refuse([]string{"p2p", "tcp"}, errors.New("p2p.tcp and p2p.quic are both false: at least one must be true"))
	}
	if b := p.cfg.Budgets; b.StreamWindowMax < b.StreamWindowInitial {
		key := []string{"budgets", "stream_window_max"}
		if lineOf(p.text, key) == 0 {
			key[1] = "stream_window_initial"
		}
		p.refuse(key, fmt.Errorf("budgets.stream_window_max (%s) must not be less than budgets.stream_window_initial (%s)", b.StreamWindowMax, b.StreamWindowInitial))
	}
}

func (p *parser) refuse(path []string, err error) {
	prob := Problem{File: p.file, Key: toml.Key(path).String(), Message: err.Error()}
	if e, ok := errors.AsType[elementError](err); ok {
		prob.Key += "." + toml.Key{e.key}.String()
		prob.Line = lineOfElement(p.text, path, e.index, e.key)
	} else {
		prob.Line = lineOf(p.text, path)
	}
	p.problems = append(p.problems, prob)
}

// isTable tells whether dotted is the path of a table that holds keys.
func (p *parser) isTable(dotted string) bool {
	return slices.ContainsFunc(p.keys, func(s spec) bool { return strings.HasPrefix(s.name, dotted+".") })
}

// names lists keys and tables, for the nearest one to a typing mistake.
func (p *parser) names() []string {
	var names []string
	for _, s := range p.keys {
		if table, _, ok := strings.Cut(s.name, "."); ok && !slices.Contains(names, table) {
			names = append(names, table)
		}
		names = append(names, s.name)
	}
	return names
}

// located takes any value and answers with an error, because the library
// tells a position only in errors.
type located struct{}

var errLocate = errors.New("locate")

func (*located) UnmarshalTOML(any) error { return errLocate }

// lineOf is the line of the value at path, 0 if the file does not have it.
func lineOf(text []byte, path []string) int {
	var at map[string]toml.Primitive
	meta, err := toml.NewDecoder(bytes.NewReader(text)).Decode(&at)
	if err != nil {
		return 0
	}
	for i, name := range path {
		prim, ok := at[name]
		if !ok {
			return 0
		}
		if i == len(path)-1 {
			pe, _ := errors.AsType[toml.ParseError](meta.PrimitiveDecode(prim, new(located)))
			return pe.Position.Line
		}
		at = nil
		if err := meta.PrimitiveDecode(prim, &at); err != nil {
			return 0
		}
	}
	return 0
}
