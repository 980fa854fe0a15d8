package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// A hint quotes the commands that its reader is to run, which get the flags
// that the reader used, and quotes none that somebody else is to run.
func TestHintsQuoteTheReadersCommands(t *testing.T) {
	found := 0
	eachSource(t, func(path string, file *ast.File) {
		for _, hint := range hintLiterals(file) {
			found++
			for _, fault := range hintFaults(t, hint) {
				t.Errorf("%s: %q: %s", path, hint, fault)
			}
		}
	})
	if found < 50 {
		t.Errorf("only %d hints were found", found)
	}
}

// eachSource goes through the sources of the programs, but for tests.
func eachSource(t *testing.T, do func(path string, file *ast.File)) {
	t.Helper()
	for _, root := range []string{"../../internal", "../../cmd", "../../service"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			do(path, file)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// hintLiterals are the texts given to WithHint, to a field named Hint or Fix,
// and those in functions whose name ends in hint.
func hintLiterals(file *ast.File) []string {
	var out []string
	collect := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					out = append(out, text)
				}
			}
			return true
		})
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "WithHint" && len(n.Args) > 0 {
				collect(n.Args[0])
			}
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && (key.Name == "Hint" || key.Name == "Fix") {
				collect(n.Value)
			}
		case *ast.FuncDecl:
			if strings.HasSuffix(strings.ToLower(n.Name.Name), "hint") && n.Body != nil {
				collect(n.Body)
			}
		}
		return true
	})
	return out
}

var (
	quotedCommand = regexp.MustCompile(`"(fastn [^"]*)"`)
	bareCommand   = regexp.MustCompile(`\bfastn (--?[a-z]+|[a-z]+)`)
	others        = regexp.MustCompile(`\b(other side|peer|administrator|owner|inviter)\b`)
	elsewhere     = regexp.MustCompile(`\b((other side|who) (runs|sees)|(other|that) machine)\b`)
	verbInFormat  = regexp.MustCompile(`%[a-z]`)
)

func hintFaults(t *testing.T, hint string) (faults []string) {
	for _, m := range quotedCommand.FindAllStringSubmatch(hint, -1) {
		words := strings.Fields(verbInFormat.ReplaceAllString(m[1], "x"))[1:]
		for i, w := range words { // a whole line of flags as one %s
			if w == "x" && i == 0 {
				words = nil
			}
		}
		err := parses(t, words)
		switch {
		case words == nil, err == nil, strings.HasPrefix(err.Error(), `expected "<`): // mentioned without its words
		case strings.HasPrefix(err.Error(), "unexpected argument x"): // which of them is not known here
		default:
			faults = append(faults, err.Error())
		}
		if elsewhere.MatchString(hint) && !others.MatchString(strings.Split(hint, m[0])[0]) {
			faults = append(faults, "quotes what another machine's user is to run")
		}
	}
	if strings.HasSuffix(strings.TrimRight(hint, `"`), "…") || strings.HasSuffix(hint, "...") {
		faults = append(faults, "ends in an ellipsis")
	}
	rest := quotedCommand.ReplaceAllString(hint, "")
	for _, m := range bareCommand.FindAllStringSubmatch(rest, -1) {
		if (topCommand([]string{m[1]}) != "" || strings.HasPrefix(m[1], "-")) && !others.MatchString(rest) {
			faults = append(faults, "does not quote a command and names nobody else who is to run it")
		}
	}
	return faults
}

func TestHintFaults(t *testing.T) {
	for hint, faulty := range map[string]bool{
		`see yours with: fastn id list`:                            true,
		`"fastn id list" shows yours`:                              false,
		`"fastn id lst" shows yours`:                               true,
		`choose one: fastn --as %s …`:                              true,
		`choose one: "fastn --as %s id show"`:                      false,
		`ask for a new ticket: the other side runs fastn invite`:   false,
		`give what "fastn invite" printed on the other machine`:    true,
		`not a node id: "fastn status" on that machine shows it`:   true,
		`you are in group fastn by your login`:                     false,
		`an administrator starts it: systemctl start fastn.socket`: false,
	} {
		if got := len(hintFaults(t, hint)) > 0; got != faulty {
			t.Errorf("%q: faulty %v, want %v", hint, got, faulty)
		}
	}
}

func TestHere(t *testing.T) {
	for _, test := range []struct {
		flags      globals
		hint, want string
	}{
		{globals{}, `see "fastn id list"`, `see "fastn id list"`},
		{globals{Home: "/a b"}, `see "fastn id list"`, `see "fastn --home '/a b' id list"`},
		{globals{Socket: "/s", As: "work"}, `"fastn a", then "fastn b"`, `"fastn --socket /s --as work a", then "fastn --socket /s --as work b"`},
		{globals{Home: "/h"}, `"fastn --as x id show"`, `"fastn --home /h --as x id show"`},
		{globals{Home: "/h", As: "y"}, `"fastn --as x id show"`, `"fastn --home /h --as x id show"`},
		{globals{Home: "/h", As: "y"}, `"fastn --home /g daemon start"`, `"fastn --home /g daemon start"`},
		{globals{Home: "/h", As: "y"}, `start your own with "fastn daemon start"`, `start your own with "fastn daemon start"`},
		{globals{}, `allow more with timeout_ms, or wait`, `allow more with --timeout, or wait`},
		{globals{Home: "/h"}, `the other side runs fastn invite`, `the other side runs fastn invite`},
	} {
		if got := (&app{flags: test.flags}).here(test.hint); got != test.want {
			t.Errorf("%q became %q, want %q", test.hint, got, test.want)
		}
	}
}

// Whatever a daemon answers, a person gets a next step that parses.
func TestEveryErrorHasAHint(t *testing.T) {
	for _, code := range []api.Code{api.CodeBadRequest, api.CodeNotFound, api.CodeConflict, api.CodeNotPermitted,
		api.CodeRefused, api.CodePeerUnreachable, api.CodeProtocolUnavailable, api.CodeOverBudget, api.CodeClockSkew,
		api.CodeExpired, api.CodeTimeout, api.CodeStalled, api.CodeAborted, api.CodeLocked, api.CodeOffline,
		api.CodeTooLarge, api.CodeUnsupported, api.CodeStorage, api.CodeInternal, api.CodeHandlerFailed, api.CodeUnavailable,
		api.CodeOutcomeUnknown, "a code of later versions"} {
		hint := (&app{}).hint(api.Errorf(code, "x"))
		if hint == "" {
			t.Errorf("%s has no hint", code)
		}
		for _, fault := range hintFaults(t, hint) {
			t.Errorf("%s: %q: %s", code, hint, fault)
		}
	}
}
