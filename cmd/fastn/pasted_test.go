package main

import (
	"bytes"
	"go/ast"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// hostile are names of protocols that a peer may choose: what a shell does with
// them when they are pasted must be nothing.
var hostile = []string{
	"$(touch${IFS}pwned)", "`touch${IFS}pwned`", "x;touch${IFS}pwned;#", "x&touch${IFS}pwned", "x|touch${IFS}pwned", ">pwned",
	"'$(touch${IFS}pwned)'", `"$(touch${IFS}pwned)"`, `\";touch${IFS}pwned;"`, "--help", "-x", "--", "~root", "*", "{a,b}", "!!", "#x", "a=b", "%s%n", `\`,
}

// Whatever a peer calls its protocol, the commands that are printed because of
// it do what they say, each name one word that is no flag, and nothing else.
func TestPrintedCommandsCanBePasted(t *testing.T) {
	folder := t.TempDir()
	stub := "#!/bin/sh\nprintf '%s\\0' \"$@\" > argv\n"
	if err := os.WriteFile(filepath.Join(folder, "fastn"), []byte(stub), 0o700); err != nil {
		t.Fatal(err)
	}
	pasted := func(command string) []string {
		t.Helper()
		sh := exec.Command("sh", "-c", command)
		sh.Dir, sh.Env = folder, []string{"PATH=" + folder + ":" + os.Getenv("PATH")}
		if out, err := sh.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v %s", command, err, out)
		}
		argv, err := os.ReadFile(filepath.Join(folder, "argv"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(folder, "argv")); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(folder); len(left) != 1 {
			t.Fatalf("%s: left %v", command, left)
		}
		return strings.Split(strings.TrimSuffix(string(argv), "\x00"), "\x00")
	}
	for _, name := range hostile {
		for _, instance := range []string{"", "work"} {
			var b bytes.Buffer
			(&app{flags: globals{Home: "/a b"}}).wanted(&b, api.Status{Wanted: []api.Wanted{{Contact: "bob", Protocol: name, Instance: instance}}})
			commands := []string{api.ListenCommand(name, instance)}
			for _, m := range printedCommand.FindAllStringSubmatch(b.String(), -1) {
				commands = append(commands, m[1])
			}
			if len(commands) != 3 {
				t.Fatalf("%q: not two commands:\n%s", name, b.String())
			}
			for _, command := range commands {
				argv := pasted(command)
				if err := parses(t, argv); err != nil {
					t.Errorf("%q: %s is refused: %v", name, command, err)
				}
				if !slices.Contains(argv, name) || instance != "" && !slices.Contains(argv, instance) {
					t.Errorf("%q: %s became %q", name, command, argv)
				}
			}
		}
	}
}

var printedCommand = regexp.MustCompile(`(?m)^ *"(.*)" (?:allows|takes) them$`)

// quotes are the functions whose result may stand in a command.
var quotes = []string{"ShellQuote", "GrantCommand", "ListenCommand", "TakeCommand"}

// A command that is told to a person has every name in it quoted for a shell:
// most come from files or peers.
func TestCommandsQuoteWhatTheyName(t *testing.T) {
	found := 0
	eachSource(t, func(path string, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				n, faults := unquoted(call)
				found += n
				for _, fault := range faults {
					t.Errorf("%s: %s", path, fault)
				}
			}
			return true
		})
	})
	if found < 10 {
		t.Errorf("only %d names in commands were found", found)
	}
}

var commandOrVerb = regexp.MustCompile(`"?\bfastn (?:--?[a-z]+|id|contact|grant|inbox|outbox|send|call|stream|listen|access|ping|daemon)\b[^";,]*|%.`)

// unquoted finds the names that a call with a format puts into a command, and those
// that are not quoted.
func unquoted(call *ast.CallExpr) (found int, faults []string) {
	for i, arg := range call.Args {
		lit, ok := arg.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			continue
		}
		format, err := strconv.Unquote(lit.Value)
		if err != nil || strings.Contains(format, "%[") {
			continue
		}
		verb := i + 1
		for _, part := range commandOrVerb.FindAllString(strings.NewReplacer("%%", "", "the fastn daemon", "").Replace(format), -1) {
			for range strings.Count(part, "%") {
				if verb < len(call.Args) && len(part) > 2 {
					found++
					if !isQuoted(call.Args[verb]) {
						faults = append(faults, strconv.Quote(format)+": a name is not quoted")
					}
				}
				verb++
			}
		}
	}
	return found, faults
}

// ours are values that are words of this program's own.
var ours = []string{"what", "minShort", "path"}

func isQuoted(arg ast.Expr) bool {
	switch arg := arg.(type) {
	case *ast.CallExpr:
		sel, ok := arg.Fun.(*ast.SelectorExpr)
		return ok && slices.Contains(quotes, sel.Sel.Name)
	case *ast.Ident:
		return slices.Contains(ours, arg.Name)
	}
	return false
}

// A peer may want many protocols: the first are told with what to do, of the others how many there are.
func TestManyWantedProtocols(t *testing.T) {
	var list []api.Wanted
	for n := range 9 {
		list = append(list, api.Wanted{Contact: "bob", Protocol: "P" + strconv.Itoa(n)})
	}
	var b bytes.Buffer
	(&app{flags: globals{Home: "/h"}}).wanted(&b, api.Status{Wanted: list})
	text := b.String()
	if strings.Count(text, "bob has messages") != mostWanted || !strings.HasSuffix(text, "\nand 4 more of these: \"fastn --home /h status --json\" has all as \"wanted\"\n\n") {
		t.Errorf("got\n%s", text)
	}
	b.Reset()
	(&app{}).wanted(&b, api.Status{Wanted: list[:mostWanted]})
	if strings.Contains(b.String(), "more") {
		t.Errorf("got\n%s", b.String())
	}
}
