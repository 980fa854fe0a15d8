package main

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/fastn-stack/fastnd/service/api"
)

func allCommands(t *testing.T) *kong.Kong {
	t.Helper()
	parser, err := newParser(&globals{}, stdio{os.Stdin, os.Stdout, os.Stderr}, "")
	if err != nil {
		t.Fatal(err)
	}
	return parser
}

// parses tells whether the program would take the words behind "fastn".
func parses(t *testing.T, words []string) error {
	t.Helper()
	g := &globals{}
	parser, err := newParser(g, stdio{os.Stdin, os.Stdout, os.Stderr}, topCommand(words))
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range words {
		if w == "--help" { // it ends the parsing with success
			words = words[:i]
			ctx, _ := kong.Trace(parser, words)
			return ctx.Error
		}
	}
	if _, err := parser.Parse(words); err != nil {
		return err
	}
	return g.check()
}

func eachNode(n *kong.Node, do func(*kong.Node)) {
	do(n)
	for _, child := range n.Children {
		eachNode(child, do)
	}
}

func TestEveryCommandHasHelpWithExamplesThatParse(t *testing.T) {
	for _, top := range allCommands(t).Model.Children {
		eachNode(top, func(n *kong.Node) {
			if n.Help == "" {
				t.Errorf("%s has no help", n.FullPath())
			}
			_, examples, found := strings.Cut(n.Detail, "Example:\n")
			if !found {
				t.Errorf("%s has no example", n.FullPath())
			}
			own := 0
			for line := range strings.SplitSeq(examples, "\n") {
				at := strings.Index(line, "fastn ")
				if at < 0 {
					t.Errorf("%s: an example without fastn: %q", n.FullPath(), line)
					continue
				}
				if width := len("  ") + textWidth(line); width > 80 { // the help is indented once more
					t.Errorf("%s: an example of %d columns: %q", n.FullPath(), width, line)
				}
				words := shellWords(t, line[at:])
				if err := parses(t, words[1:]); err != nil {
					t.Errorf("%s: example %q: %v", n.FullPath(), line, err)
				}
				if strings.Contains(line, strings.TrimPrefix(n.FullPath(), "fastn ")) {
					own++
				}
			}
			if own == 0 {
				t.Errorf("%s: no example shows it", n.FullPath())
			}
			for _, v := range n.Values() {
				if v.Help == "" {
					t.Errorf("%s: %s has no help", n.FullPath(), v.Name)
				}
			}
		})
	}
}

// A command that is selected must do something.
func TestEveryLeafRuns(t *testing.T) {
	for _, leaf := range allCommands(t).Model.Leaves(false) {
		if _, ok := leaf.Target.Addr().Interface().(runner); !ok {
			t.Errorf("%s cannot be run", leaf.FullPath())
		}
	}
}

// What completion can list is a closed set; a typo would list nothing.
func TestCompletionKindsAreKnown(t *testing.T) {
	known := "identity protocol contact target who inbox outbox file dir"
	eachNode(allCommands(t).Model.Node, func(n *kong.Node) {
		for _, v := range n.Values() {
			if kind := v.Tag.Get("complete"); kind != "" && !strings.Contains(" "+known+" ", " "+kind+" ") {
				t.Errorf("%s: %s is completed as %q", n.FullPath(), v.Name, kind)
			}
		}
	})
}

func TestTopCommand(t *testing.T) {
	for line, want := range map[string]string{
		"":                       "",
		"status":                 "status",
		"--json status":          "status",
		"--as status call x y":   "call",
		"--as=status call x y":   "call",
		"--home /h --json id":    "id",
		"nonsense call":          "",
		"-q ping x":              "ping",
		"--socket":               "",
		"grant add status thing": "grant",
	} {
		if got := topCommand(strings.Fields(line)); got != want {
			t.Errorf("topCommand(%q) = %q, want %q", line, got, want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for code, want := range map[api.Code]int{
		api.CodeBadRequest: 2, api.CodeUnavailable: 3, api.CodeNotPermitted: 4, api.CodeRefused: 4,
		api.CodePeerUnreachable: 5, api.CodeNotFound: 1, api.CodeAborted: 1, api.CodeTimeout: 1,
		api.CodeOutcomeUnknown: 1, api.CodeLocked: 1, api.CodeInternal: 1, api.CodeConflict: 1,
	} {
		if got := exitCode(api.Errorf(code, "x")); got != want {
			t.Errorf("exit code of %s is %d, want %d", code, got, want)
		}
	}
	if exitCode(nil) != 0 || exitCode(errors.New("x")) != 1 {
		t.Error("nil must be 0, every other error at least 1")
	}
}

func TestWatchKnowsEveryKind(t *testing.T) {
	field, _ := reflect.TypeFor[watchCmd]().FieldByName("Kinds")
	kinds := strings.Split(field.Tag.Get("enum"), ",")
	slices.Sort(kinds)
	if !slices.Equal(kinds, api.EventKinds()) {
		t.Errorf("watch takes %v, the daemon tells %v", kinds, api.EventKinds())
	}
	help := (&watchCmd{}).Help()
	for _, k := range kinds {
		if !strings.Contains(help, k) {
			t.Errorf("the help does not name %s", k)
		}
	}
}
