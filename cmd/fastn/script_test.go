package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// binaries is the folder with fastn and fastnd, built once for all scripts.
var binaries string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fastn-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir, "../fastn", "../fastnd")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building fastn and fastnd:", err)
		return 1
	}
	binaries = dir
	return m.Run()
}

// lookAtSources makes the results of these tests depend on the sources of the
// programs: go test keeps a result until a file changes that the test itself
// looked at, and they are built by another process.
func lookAtSources() {
	_ = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			_, _ = os.Stat(path)
		}
		return nil
	})
}

// hints collects the fastn commands that hints name, over all scripts.
type hints struct {
	sync.Mutex
	seen map[string]string // command → script
}

// TestScripts runs the real programs. The last subtest reads every hint that
// was printed: a hint that the program does not understand is a bug.
func TestScripts(t *testing.T) {
	lookAtSources() // not earlier: what is looked at before the tests run does not count
	h := &hints{seen: map[string]string{}}
	t.Run("script", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir:                 "testdata/script",
			RequireExplicitExec: true,
			Deadline:            time.Now().Add(10 * time.Minute), // for what waits in vain
			Setup:               setup,
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"exits":      h.exits,
				"runhint":    h.runHint,
				"eventually": eventually,
				"save":       save,
				"mode":       mode,
				"home":       home,
				"killed":     killed,
				"listening":  listening,
			},
		})
	})
	t.Run("hints", func(t *testing.T) {
		if len(h.seen) == 0 {
			t.Fatal("no script printed a hint with a fastn command")
		}
		for command, script := range h.seen {
			err := parses(t, shellWords(t, command)[1:])
			if err != nil && strings.HasPrefix(err.Error(), `expected "<`) {
				continue // a command that is mentioned, without its words
			}
			if err != nil {
				t.Errorf("%s: the hint names %q, which is refused: %v", script, command, err)
			}
		}
	})
}

// setup gives each script a home of its own and an environment without any
// daemon, and stops what the script started when it is over.
func setup(env *testscript.Env) error {
	env.Setenv("PATH", binaries+string(os.PathListSeparator)+env.Getenv("PATH"))
	for _, name := range []string{"FASTN_HOME", "FASTN_SOCKET", "FASTN_AS", "NO_COLOR"} {
		env.Setenv(name, "")
	}
	env.Setenv("NODE", "12D3KooWCBTQS1bYgRnXeuQUMQEcvJV7FKRN6xwWKFyA1dAQ8zBc")
	env.Setenv("OTHER", "12D3KooWNegaBvVfRUyxn97naz9F7PFtxo3f2pxrDY5Cb54fqMP9")
	env.Setenv("ESC", "\x1b[2J")
	packaging, err := filepath.Abs("../../packaging")
	if err != nil {
		return err
	}
	env.Setenv("PACKAGING", packaging)
	// A Unix socket's path is short: scripts keep homes below $H.
	dir, err := os.MkdirTemp("", "fh")
	if err != nil {
		return err
	}
	env.Setenv("H", dir)
	env.Setenv("HOME", filepath.Join(dir, "user"))
	env.Defer(func() {
		stopAll(env, dir)
		_ = os.RemoveAll(dir)
	})
	return os.Mkdir(filepath.Join(dir, "user"), 0o700)
}

func stopAll(env *testscript.Env, dir string) {
	sockets, _ := filepath.Glob(filepath.Join(dir, "*", "daemon.sock"))
	nested, _ := filepath.Glob(filepath.Join(dir, "*", ".fastn", "daemon.sock"))
	for _, socket := range append(sockets, nested...) {
		stop := func(flags ...string) error {
			args := append([]string{"--home", filepath.Dir(socket), "daemon", "stop"}, flags...)
			out, err := exec.Command(filepath.Join(binaries, "fastn"), args...).CombinedOutput()
			if err != nil {
				env.T().Log("stopping the daemon of", socket, err, string(out))
			}
			return err
		}
		if stop() != nil {
			_ = stop("--force")
		}
	}
}

// home NAME…: makes the homes $H/NAME, whose daemons use the loopback only.
func home(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		dir := filepath.Join(ts.Getenv("H"), name)
		ts.Check(os.Mkdir(dir, 0o700))
		ts.Check(os.WriteFile(filepath.Join(dir, "fastn.toml"), []byte("[p2p]\nlisten = [\"127.0.0.1\"]\n"), 0o600))
		ts.Setenv(strings.ToUpper(name), dir)
	}
}

// exits CODE PROGRAM ARG…: runs it and compares the exit code. A failure must
// have printed the error and the hint, a line each, as the last two.
func (h *hints) exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	h.note(ts)
	if got != want {
		ts.Fatalf("exit code %d, want %d\n%s", got, want, ts.ReadFile("stderr"))
	}
	if want != 0 && !twoLines.MatchString(ts.ReadFile("stderr")) {
		ts.Fatalf("not an error and its hint:\n%s", ts.ReadFile("stderr"))
	}
}

var twoLines = regexp.MustCompile(`(^|\n)(fastn: [^\n]+\nhint(?: from [^\n]+)?: [^\n]+|\{"code":"[a-z_]+","message":"[^\n]+","hint":"[^\n]+"\})\n$`)

// note keeps the fastn commands in the hint lines of standard error.
func (h *hints) note(ts *testscript.TestScript) {
	for _, command := range hintCommands(ts.ReadFile("stderr")) {
		h.Lock()
		h.seen[command] = ts.Name()
		h.Unlock()
	}
}

// hintCommands finds the fastn commands that hint lines quote: those that the
// reader is to run.
func hintCommands(stderr string) []string {
	var out []string
	for line := range strings.Lines(stderr) {
		if text, ok := strings.CutPrefix(line, "hint: "); ok {
			for _, m := range quotedCommand.FindAllStringSubmatch(text, -1) {
				out = append(out, m[1])
			}
		}
	}
	return out
}

// runhint: runs the first fastn command of the last hint; it must succeed.
func (h *hints) runHint(ts *testscript.TestScript, neg bool, args []string) {
	commands := hintCommands(ts.ReadFile("stderr"))
	if len(commands) == 0 {
		ts.Fatalf("no hint names a command:\n%s", ts.ReadFile("stderr"))
	}
	ts.Check(ts.Exec("sh", "-c", commands[0]))
}

// eventually PROGRAM ARG…: repeats it until it succeeds, for a minute at most.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	until(ts, func() bool { return ts.Exec(args[0], args[1:]...) == nil })
}

// listening HOME PROTOCOL: waits until it is served there.
func listening(ts *testscript.TestScript, neg bool, args []string) {
	until(ts, func() bool {
		return ts.Exec("fastn", "--home", args[0], "id", "--json") == nil &&
			strings.Contains(ts.ReadFile("stdout"), strconv.Quote(args[1]))
	})
}

func until(ts *testscript.TestScript, holds func() bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			ts.Fatalf("not within a minute\n%s", ts.ReadFile("stderr"))
		case <-tick.C:
		}
	}
}

// save NAME: keeps the last standard output, trimmed, in a variable.
func save(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// mode OCTAL FILE: compares a file's permissions.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// killed REPORT: kills the daemon that "fastn daemon start --json" reported, as
// a crash would, and waits until it is gone.
func killed(ts *testscript.TestScript, neg bool, args []string) {
	var report struct{ PID int }
	ts.Check(json.Unmarshal([]byte(args[0]), &report))
	proc, err := os.FindProcess(report.PID)
	ts.Check(err)
	ts.Check(proc.Kill())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ts.Check(awaitExit(ctx, proc))
}
