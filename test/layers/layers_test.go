// Package layers checks the rules of dependence (ARCHITECTURE.md): which
// package may know which, and who owns each heavy library.
package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fastn-stack/fastnd/"

type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Standard,Imports,Deps", module+"...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// floor is what the siblings in internal/ may import of ours.
var floor = []string{"service/api", "plugins/abi", "internal/identity", "internal/wire", "internal/config", "internal/router",
	"internal/lru", "internal/crew"}

// may lists what a package may import of ours, where that is not floor.
var may = map[string][]string{
	"service/api":       {},
	"plugins/abi":       {},
	"service/client":    {"service/api"},
	"cmd/fastn":         {"service/client", "service/api"},
	"cmd/fastnd":        {"internal/daemon"},
	"internal/identity": {"service/api", "internal/lru"},
	"internal/lru":      {},
	"internal/crew":     {},
	"internal/wire":     {"service/api"},
	"internal/config":   {"service/api"},
	"internal/router":   {"service/api", "internal/identity", "internal/wire", "internal/config"},
	"internal/store":    append([]string{"internal/sqlite"}, floor...),
	"internal/messages": append([]string{"internal/sqlite"}, floor...),
}

func TestOurImports(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if under(name, "internal/daemon") || strings.HasPrefix(name, "test/") || name == "internal/testutil" ||
			strings.HasSuffix(name, "test") && strings.HasPrefix(name, "internal/") {
			continue // the one place that wires, and what only tests use
		}
		allowed, ok := may[name]
		if !ok {
			allowed = floor
		}
		for _, imp := range p.Imports {
			if ours, ok := strings.CutPrefix(imp, module); ok && !slices.Contains(allowed, ours) && !strings.HasPrefix(ours, name+"/") {
				t.Errorf("%s imports %s; it may import %s", name, ours, strings.Join(allowed, ", "))
			}
		}
		if name == "service/api" || name == "plugins/abi" {
			for _, imp := range p.Imports {
				if strings.Contains(strings.Split(imp, "/")[0], ".") {
					t.Errorf("%s imports %s; it may import the standard library only", name, imp)
				}
			}
		}
	}
}

// owners tells which of our packages may import a heavy library directly.
var owners = []struct {
	library string
	by      []string
}{
	{"github.com/libp2p/go-libp2p/core/crypto", []string{"internal/p2p", "internal/identity"}},
	{"github.com/libp2p/go-libp2p/core/peer", []string{"internal/p2p", "internal/identity"}},
	{"github.com/libp2p/go-libp2p/core/record", []string{"internal/p2p", "internal/identity"}},
	{"github.com/libp2p/go-libp2p", []string{"internal/p2p"}},
	{"github.com/quic-go/quic-go", []string{"internal/p2p"}},
	{"modernc.org/sqlite", []string{"internal/sqlite"}},
	{"github.com/bytecodealliance/wasmtime-go", []string{"internal/wasmhost"}},
	{"github.com/coreos/go-systemd", []string{"internal/systemd"}},
}

func under(imp, library string) bool { return imp == library || strings.HasPrefix(imp, library+"/") }

func TestHeavyLibrariesHaveOneOwner(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(name, "test/") {
			continue
		}
		for _, imp := range p.Imports {
			for _, o := range owners {
				if !under(imp, o.library) {
					continue
				}
				owned := slices.ContainsFunc(o.by, func(by string) bool { return under(name, by) })
				if !owned {
					t.Errorf("%s imports %s, which belongs to %s", name, imp, strings.Join(o.by, ", "))
				}
				break
			}
		}
	}
}

func TestProgramsLinkNoMore(t *testing.T) {
	never := map[string][]string{
		"cmd/fastn": {"github.com/libp2p/go-libp2p", "modernc.org/sqlite", "github.com/bytecodealliance/wasmtime-go",
			"github.com/coreos/go-systemd", module + "internal"},
		"cmd/fastnd": {"github.com/bytecodealliance/wasmtime-go"},
	}
	seen := 0
	for _, p := range list(t) {
		for _, library := range never[strings.TrimPrefix(p.ImportPath, module)] {
			seen++
			for _, dep := range p.Deps {
				if under(dep, library) {
					t.Errorf("%s links %s", p.ImportPath, dep)
				}
			}
		}
	}
	if seen == 0 {
		t.Error("no program was looked at")
	}
}
