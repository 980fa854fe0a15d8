package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"github.com/fastn-stack/fastnd/service/api"
)

// stdio are the three standard files of one run.
type stdio struct {
	In, Out, Err *os.File
}

// runner is what each command's struct implements.
type runner interface {
	run(a *app) error
}

// helpShown is how a parser stops after --help without leaving the process.
type helpShown struct{}

// run is the whole program but for the process: it parses args, runs the
// command, prints an error in two lines and returns the exit code.
func run(ctx context.Context, args []string, std stdio) (code int) {
	a := newApp(ctx, std)
	defer a.close()
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(helpShown); !ok {
				panic(r)
			}
			code = 0
		}
	}()
	err := a.dispatch(args)
	if err != nil {
		a.printError(err)
	}
	return exitCode(err)
}

func (a *app) dispatch(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "__complete":
			return a.complete(args[1:])
		case "--man":
			return a.writeMan()
		case "--version":
			args = append([]string{"version"}, args[1:]...)
		}
	}
	// The parser would replace what is not UTF-8, in texts as well as in paths.
	for i, arg := range args {
		if !utf8.ValidString(arg) {
			return usage("argument %d is not UTF-8: %q", i+1, arg).WithHint("bytes are read from standard input where a command takes -")
		}
	}
	parser, err := newParser(&a.flags, a.std, topCommand(args))
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(args)
	if err != nil && slices.Contains(ownWords(args), "--json") { // what is wrong may stand before it
		a.flags.JSON = true
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok { // of the help, which is written while it parses
		return writeFailed(err)
	}
	if err != nil {
		return usageFrom(err)
	}
	a.command = parsed.Selected().FullPath()
	if err := checkWords(parsed); err != nil {
		return err
	}
	if err := a.flags.check(); err != nil {
		return err
	}
	cmd, ok := parsed.Selected().Target.Addr().Interface().(runner)
	if !ok {
		return api.Errorf(api.CodeInternal, "the command %q does nothing", parsed.Command())
	}
	return cmd.run(a)
}

// longestTarget is more than a name or an id may have, in bytes: what is longer is
// not to be repeated by errors.
const longestTarget = 256

// checkWords refuses what can be told to be wrong without a daemon: a flag that
// was given without a value, as an unset variable of the shell's gives it (the
// default is another daemon or identity), and words against their valid tag.
func checkWords(parsed *kong.Context) error {
	for _, p := range parsed.Path {
		value := p.Positional
		if p.Flag != nil {
			value = p.Flag.Value
		}
		if value == nil || value.Target.Kind() != reflect.String {
			continue
		}
		text := value.Target.String()
		if p.Flag != nil && text == "" {
			e := usage("--%s has no value", p.Flag.Name)
			if value.Tag.Get("valid") == "some" { // it has no default
				return e.WithHint("give --%s %s; is a variable of your shell's not set?", p.Flag.Name, p.Flag.FormatPlaceHolder())
			}
			return e.WithHint("leave it out for the default; is a variable of your shell's not set?")
		}
		var err error
		switch value.Tag.Get("valid") {
		case "name":
			err = api.ValidName("the "+cmp.Or(value.Tag.Get("what"), value.Name), text)
		case "protocol":
			err = api.ValidProtocol(text)
		case "some":
			switch {
			case text == "":
				err = usage("the %s is empty", value.Name)
			case p.Positional != nil && len(text) > longestTarget:
				err = usage("the %s has %d bytes: no name or id is that long", value.Name, len(text)).
					WithHint(`"fastn contact list" shows your contacts`)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ownWords are those that are not a program's, behind --.
func ownWords(args []string) []string {
	if i := slices.Index(args, "--"); i >= 0 {
		return args[:i]
	}
	return args
}

// newParser builds the parser. With only set, just that command is built: the
// model of all of them costs a third of the time that a whole call may take.
func newParser(g *globals, std stdio, only string) (*kong.Kong, error) {
	options := []kong.Option{
		kong.Name("fastn"),
		kong.Description(description),
		kong.Writers(std.Out, std.Err),
		kong.Exit(func(int) { panic(helpShown{}) }),
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true, WrapUpperBound: 100}),
	}
	for _, c := range commands() {
		if only == "" || c.name == only {
			options = append(options, kong.DynamicCommand(c.name, c.help, "", c.grammar()))
		}
	}
	return kong.New(g, options...)
}

// topCommand finds the command's name among args: the first word that is no
// flag and no flag's value. It is "" if that word names no command.
func topCommand(args []string) string {
	for i := 0; i < len(args); i++ {
		switch word := args[i]; {
		case word == "--home" || word == "--socket" || word == "--as":
			i++
		case strings.HasPrefix(word, "-"):
		default:
			for _, c := range commands() {
				if c.name == word {
					return word
				}
			}
			return ""
		}
	}
	return ""
}
