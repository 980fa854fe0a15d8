package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// suite is what all tests on one Debian release share; nothing in it changes later.
type suite struct {
	release string // its code name
	tree    string // unpacked Debian root, the lower layer of every machine
	repo    string // apt repository with the package
	probe   string // the program in ./probe, linked without libraries
}

// shared is made by the first test that boots a machine.
var shared struct {
	sync.Once
	dir    string
	suites []suite
	err    error
}

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fastn-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared.dir = dir
	code := m.Run()
	// go test cannot see that these tests depend on every source of the package,
	// but keeps no result of a test that opened so new a file of the module.
	if err := os.WriteFile("../../build/e2e.stamp", nil, 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// onEach runs test on every release, on all at once: machines mostly wait.
func onEach(t *testing.T, test func(*testing.T, suite)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("booting machines needs root")
	}
	shared.Do(func() { shared.suites, shared.err = prepare(t.Context(), shared.dir) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	for _, s := range shared.suites {
		t.Run(s.release, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// prepare makes what the machines need: one package for all releases, their trees
// beside one another.
func prepare(ctx context.Context, dir string) ([]suite, error) {
	top, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	common := suite{repo: os.Getenv("FASTN_E2E_APT"), probe: filepath.Join(dir, "probe")}
	works := []func() error{func() error { return run(ctx, top, "go", "build", "-o", common.probe, "./test/e2e/probe") }}
	if common.repo == "" {
		// The other architecture takes a minute to cross-build.
		target := "apt-repo-own"
		common.repo = filepath.Join(top, "build/apt-"+runtime.GOARCH)
		if testutil.Torture() {
			target, common.repo = "apt-repo", filepath.Join(top, "build/apt")
		}
		// make knows what is out of date; a test of an old package proves nothing.
		works = append(works, func() error { return run(ctx, top, "make", "-f", "packaging/Makefile.inc", target) })
	}
	var suites []suite
	for _, release := range releases() {
		s := common
		s.release, s.tree = release, filepath.Join(dir, release)
		suites = append(suites, s)
		works = append(works, func() error {
			if err := os.Mkdir(s.tree, 0o755); err != nil {
				return err
			}
			return nspawn.Tree(ctx, release, s.tree)
		})
	}
	errs := make([]error, len(works))
	var wg sync.WaitGroup
	for i, work := range works {
		wg.Go(func() { errs[i] = work() })
	}
	wg.Wait()
	return suites, errors.Join(errs...)
}

// releases are those that FASTN_E2E_SUITE names, by default all supported.
func releases() []string {
	if names := strings.Fields(os.Getenv("FASTN_E2E_SUITE")); len(names) > 0 {
		return names
	}
	return []string{"bookworm", "trixie"}
}

func run(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	// CGO_ENABLED is for the probe, which must run in any tree; make sets its
	// own. The flags of a make that runs this test are not for another one.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "MAKEFLAGS=", "MAKELEVEL=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", strings.Join(args, " "), err), errors.New(string(out)))
	}
	return nil
}

// soon bounds what takes a second on a machine that has nothing else to do.
const soon = 80 * time.Second

// boot starts a machine that knows the apt repository and has the probe.
func boot(t *testing.T, s suite, name string) *nspawn.Machine {
	t.Helper()
	m := nspawn.Boot(t, nspawn.Options{Name: name, Tree: s.tree, ReadOnly: []string{s.repo}})
	m.CopyIn(filepath.Join(s.repo, "fastn.sources"), sourceList, 0o644)
	m.CopyIn(s.probe, "/usr/local/bin/probe", 0o755)
	return m
}

const sourceList = "/etc/apt/sources.list.d/fastn.sources"

// apt runs apt-get with no source but the local repository: there is no network.
func apt(m *nspawn.Machine, args ...string) nspawn.Result {
	args = append([]string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes",
		"-o", "Dir::Etc::sourcelist=" + sourceList, "-o", "Dir::Etc::sourceparts=-"}, args...)
	return m.Run(args...)
}

// install installs the package as a user of a machine would.
func install(t *testing.T, m *nspawn.Machine) {
	t.Helper()
	for _, args := range [][]string{{"update"}, {"install", "fastn"}} {
		r := apt(m, args...)
		if r.Code != 0 {
			t.Fatalf("apt-get %v: %v", args, r)
		}
		if strings.Contains(r.Out+r.Err, "\nW: ") {
			t.Errorf("apt-get %v warns: %v", args, r)
		}
	}
}

// enable does what README tells an administrator to do.
func enable(m *nspawn.Machine) { m.Must("systemctl", "enable", "--now", "fastn.socket") }

// addUser makes a user; groups are supplementary.
func addUser(m *nspawn.Machine, name string, groups ...string) {
	m.Must("useradd", "--create-home", "--shell", "/bin/bash", name)
	for _, g := range groups {
		m.Must("usermod", "--append", "--groups", g, name)
	}
}
