package config

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// The lists of keys in the man page and in the shipped file are made from
// [Keys]; "go test ./internal/config -update" writes them.
const (
	shippedFile = "../../packaging/fastn.toml"
	manPage     = "../../packaging/man/fastn.toml.5"
)

var update = flag.Bool("update", false, "write the lists of keys in packaging/")

func TestShippedFileDocumentsEveryKey(t *testing.T) {
	checkBlock(t, shippedFile, "# --- keys ---\n", "# --- end ---\n", tomlBlock())
}

func TestManPageDocumentsEveryKey(t *testing.T) {
	checkBlock(t, manPage, ".\\\" --- keys ---\n", ".\\\" --- end ---\n", manBlock())
}

// The file as shipped, and the file with every default uncommented, are both
// the default configuration.
func TestShippedFileIsDefault(t *testing.T) {
	text := read(t, shippedFile)
	for _, line := range strings.Split(text, "\n") {
		if line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "[") {
			t.Errorf("a key is not commented out: %s", line)
		}
	}
	uncommented := regexp.MustCompile(`(?m)^#([a-z0-9_]+ = )`).ReplaceAllString(text, "$1")
	if n := strings.Count(uncommented, " = "); n < len(Keys()) {
		t.Fatalf("only %d keys in\n%s", n, uncommented)
	}
	for _, s := range []string{text, uncommented} {
		got, err := Parse(strings.NewReader(s), shippedFile)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range allKeys() {
			def := Default()
			if !reflect.DeepEqual(k.get(&got), k.get(&def)) {
				t.Errorf("%s is %v, not the default", k.name, k.get(&got))
			}
		}
	}
}

func TestKeysAreComplete(t *testing.T) {
	fields := countFields(reflect.TypeFor[Config]())
	keys := Keys()
	if len(keys) != fields {
		t.Errorf("%d keys for %d fields of Config", len(keys), fields)
	}
	for _, k := range keys {
		if k.Name == "" || k.Type == "" || k.Default == "" || !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("incomplete: %+v", k)
		}
	}
}

func countFields(t reflect.Type) int {
	if t.Kind() != reflect.Struct {
		return 1
	}
	n := 0
	for f := range t.Fields() {
		n += countFields(f.Type)
	}
	return n
}

func tomlBlock() string {
	var b strings.Builder
	table := ""
	for _, k := range Keys() {
		head, name, _ := strings.Cut(k.Name, ".")
		if head != table {
			fmt.Fprintf(&b, "[%s]\n", head)
			table = head
		}
		b.WriteString("\n" + wrap(k.Doc+restartNote(k), "# ") + wrap("Value: "+k.Type+".", "# "))
		fmt.Fprintf(&b, "#%s = %s\n", name, k.Default)
		if k.Name == "p2p.static_peers" {
			b.WriteString("# For example:\n#   [[p2p.static_peers]]\n#   id = \"12D3KooW…\"\n#   addresses = [\"/dns/host.example/udp/4100/quic-v1\"]\n")
		}
		if next := nextTable(k.Name); next {
			b.WriteString("\n")
		}
	}
	return b.String()
}

// nextTable tells whether the key is the last of its table.
func nextTable(name string) bool {
	keys := Keys()
	for i, k := range keys[:len(keys)-1] {
		if k.Name == name {
			return strings.Split(name, ".")[0] != strings.Split(keys[i+1].Name, ".")[0]
		}
	}
	return false
}

func manBlock() string {
	var b strings.Builder
	b.WriteString(".Bl -tag -width Ds\n")
	for _, k := range Keys() {
		fmt.Fprintf(&b, ".It Ic %s No = Ar %s\n", k.Name, roff(k.Default))
		text := k.Doc + restartNote(k) + " Value: " + k.Type + "."
		b.WriteString(strings.ReplaceAll(roff(text), ". ", ".\n") + "\n")
	}
	b.WriteString(".El\n")
	return b.String()
}

func restartNote(k KeyDoc) string {
	if k.Restart && !strings.HasSuffix(k.Doc, "after a restart.") {
		return " A change needs a restart."
	}
	return ""
}

func roff(s string) string {
	s = strings.ReplaceAll(s, `\`, `\e`)
	return strings.ReplaceAll(s, `"`, `\(dq`)
}

// wrap breaks text into lines of at most 78 characters.
func wrap(text, prefix string) string {
	var b strings.Builder
	line := prefix
	for _, word := range strings.Fields(text) {
		if len(line)+len(word) > 78 {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = prefix
		}
		line += word + " "
	}
	return b.String() + strings.TrimRight(line, " ") + "\n"
}

func checkBlock(t *testing.T, path, begin, end, want string) {
	t.Helper()
	text := read(t, path)
	head, rest, ok1 := strings.Cut(text, begin)
	got, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s: no list of keys between %q and %q", path, begin, end)
	}
	if got == want {
		return
	}
	if *update {
		if err := os.WriteFile(path, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s does not tell what the program does; run: go test ./internal/config -update\ngot:\n%s\nwant:\n%s", path, got, want)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The man pages render without a warning.
func TestManPagesRender(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not installed: apt-get install groff-base")
	}
	for _, page := range []string{manPage, "../../packaging/man/fastnd.8"} {
		cmd := exec.Command(groff, "-mandoc", "-Tutf8", "-ww", page)
		var warnings strings.Builder
		cmd.Stderr = &warnings
		if err := cmd.Run(); err != nil || warnings.Len() > 0 {
			t.Errorf("%s: %v\n%s", page, err, warnings.String())
		}
	}
}
