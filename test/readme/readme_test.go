// Package readme runs the commands of README.md as they stand there.
package readme

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// root is the top folder, from here.
const root = "../.."

// sections reads README's indented code blocks by the heading above them.
func sections(t *testing.T) map[string][][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][][]string)
	heading, inBlock := "", false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case strings.HasPrefix(line, "## "):
			heading, inBlock = line[3:], false
		case indented && !inBlock:
			out[heading] = append(out[heading], []string{code})
			inBlock = true
		case indented:
			blocks := out[heading]
			blocks[len(blocks)-1] = append(blocks[len(blocks)-1], code)
		case line != "":
			inBlock = false
		}
	}
	return out
}

// person runs commands with a home of her own.
type person struct {
	t   *testing.T
	env []string
	dir string
}

func (p person) start(ctx context.Context, line string, stdout *os.File) *exec.Cmd {
	p.t.Helper()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", line)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = p.env, p.dir, stdout, stdout
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return cmd
}

func (p person) run(line string) string {
	p.t.Helper()
	out, err := os.CreateTemp(p.dir, "out")
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	runErr := p.start(ctx, line, out).Wait()
	text, err := os.ReadFile(out.Name())
	if err != nil {
		p.t.Fatal(err)
	}
	if runErr != nil {
		p.t.Fatalf("$ %s\n%s%v", line, text, runErr)
	}
	return string(text)
}

// programs builds fastn and fastnd and returns a PATH that has them.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir, "./cmd/fastn", "./cmd/fastnd")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return "PATH=" + dir + ":" + os.Getenv("PATH")
}

// newPerson makes a home with a daemon that listens on loopback only.
func newPerson(t *testing.T, path, name string) person {
	t.Helper()
	dir, err := os.MkdirTemp("", "fastn-readme") // short: it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	home := filepath.Join(dir, ".fastn")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "fastn.toml"), []byte("[p2p]\nlisten = [\"127.0.0.1\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := person{t: t, dir: dir, env: []string{path, "HOME=" + dir, "USER=" + name, "FASTN_HOME=" + home}}
	t.Cleanup(func() { p.run("fastn daemon stop") })
	return p
}

// TestTour plays README's tour: the blocks alternate between the two.
func TestTour(t *testing.T) {
	blocks := sections(t)["A tour"]
	if len(blocks) != 7 {
		t.Fatalf("the tour has %d blocks; say here who types each", len(blocks))
	}
	path := programs(t)
	bob, alice := newPerson(t, path, "bob"), newPerson(t, path, "alice")
	bob.run("fastn daemon start")
	alice.run("fastn daemon start")

	ticket := filepath.Join(alice.dir, "ticket")
	for _, line := range blocks[0] {
		if m := regexp.MustCompile(`(?m)^fastn1\S+$`).FindString(bob.run(line)); m != "" {
			if err := os.WriteFile(ticket, []byte(m+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, line := range blocks[1] {
		if strings.HasSuffix(line, " -") {
			line += " < ticket" // what Alice pastes
		}
		out := alice.run(line)
		if strings.Contains(line, "Echo") && !strings.Contains(out, `{"echoed":"Echo: hello"}`) {
			t.Errorf("$ %s\n%s", line, out)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var listener *exec.Cmd
	for _, line := range blocks[2] {
		if strings.HasPrefix(line, "fastn listen") {
			listener = bob.start(ctx, "exec "+line, nil)
			continue
		}
		bob.run(line)
	}
	defer func() { cancel(); _ = listener.Wait() }()
	waitFor(t, func() bool { return strings.Contains(bob.run("fastn id list --json"), `"upper"`) })
	for _, line := range blocks[3] {
		if out := alice.run(line); !strings.Contains(out, "HELLO") {
			t.Errorf("$ %s\n%s", line, out)
		}
	}
	for _, line := range blocks[4] {
		alice.run(line)
	}
	waitFor(t, func() bool { return strings.Contains(bob.run("fastn inbox --json"), `"text"`) })
	for _, line := range blocks[5] {
		if out := bob.run(line); !strings.Contains(out, "the build is done") {
			t.Errorf("$ %s\n%s", line, out)
		}
	}
	for _, line := range blocks[6] {
		bob.run(line)
	}
}

// TestWithoutRoot runs the commands of a per-user daemon in a fresh home, as one
// session in the top folder: they build the programs and put them into PATH.
func TestWithoutRoot(t *testing.T) {
	blocks := sections(t)["Without root or systemd"]
	if len(blocks) != 1 {
		t.Fatalf("%d blocks", len(blocks))
	}
	p := newPerson(t, programs(t), "carol")
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOSUMDB", "GOFLAGS"} {
		value, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		p.env = append(p.env, name+"="+strings.TrimSpace(string(value)))
	}
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	script := append([]string{"cd " + top}, blocks[0]...)
	script = append(script, "command -v fastn")
	if out := p.run(strings.Join(script, "\n")); !strings.HasSuffix(out, filepath.Join(top, "bin", "fastn")+"\n") {
		t.Errorf("another fastn ran\n%s", out)
	}
}

// TestTargets: what README tells to make is in the Makefile. Each is run by
// .ci/run; to run them here would be a loop.
func TestTargets(t *testing.T) {
	var targets []string
	for _, block := range sections(t)["Try it here"] {
		for _, line := range block {
			if f := strings.Fields(line); f[0] == "make" {
				targets = append(targets, f[1])
			}
		}
	}
	if !slices.Contains(targets, "demo") || !slices.Contains(targets, "test") {
		t.Errorf("README tells to make %v", targets)
	}
	for _, target := range targets {
		cmd := exec.Command("make", "--dry-run", target)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("make %s: %v\n%s", target, err, out)
		}
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("not in time")
		}
		time.Sleep(20 * time.Millisecond)
	}
}
