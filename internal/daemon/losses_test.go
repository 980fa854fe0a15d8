package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// What is gone after a stop is told until somebody has seen it.
func TestLossesAreTold(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(t *testing.T, home string)
		text string
	}{
		"store missing":      {func(t *testing.T, home string) { remove(t, home, store.File+"*") }, "the store was missing"},
		"store file missing": {func(t *testing.T, home string) { remove(t, home, store.File) }, "the store was missing"},
		"store truncated":    {func(t *testing.T, home string) { cut(t, home, store.File) }, "the store was damaged"},
		"mail missing":       {func(t *testing.T, home string) { remove(t, home, messages.File+"*") }, "the messages were missing"},
		"mail file missing":  {func(t *testing.T, home string) { remove(t, home, messages.File) }, "the messages were missing"},
		"mail truncated":     {func(t *testing.T, home string) { cut(t, home, messages.File) }, "the messages were damaged"},
		"store log missing":  {func(t *testing.T, home string) { loseLog(t, home, store.File) }, "an unknown number of the last changes"},
		"mail log missing":   {func(t *testing.T, home string) { loseLog(t, home, messages.File) }, "the messages were found without their last changes, lost are an unknown number of the last changes"},
		"node key missing": {func(t *testing.T, home string) {
			if err := os.Remove(filepath.Join(home, "keystore", "node.key")); err != nil {
				t.Fatal(err)
			}
		}, "another was made"},
	} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			d := start(t, opts{})
			d.own()
			if got := d.status().Problems; len(got) != 0 {
				t.Fatalf("problems before: %+v", got)
			}
			d.stop()
			c.lose(t, d.home)
			d = d.again(t, opts{})
			problem := func() bool {
				p := d.status().Problems
				return len(p) == 1 && strings.Contains(p[0].Text, c.text) && strings.Contains(p[0].Fix, "reload")
			}
			if !problem() {
				t.Fatalf("problems: %+v", d.status().Problems)
			}
			d = d.again(t, opts{})
			if !problem() {
				t.Fatalf("after another start: %+v", d.status().Problems)
			}
			if r := d.mustReload(); len(r.Acknowledged) != 1 || !strings.Contains(r.Acknowledged[0], c.text) || len(r.Problems)+len(r.Online) != 0 {
				t.Errorf("the reload tells %+v", r)
			}
			if p := d.status().Problems; len(p) != 0 {
				t.Errorf("after a reload: %+v", p)
			}
			if r := d.mustReload(); len(r.Acknowledged) != 0 {
				t.Errorf("the next reload tells %+v", r)
			}
		})
	}
}

// A node key that is put back is told to be another than the daemon runs with, until
// it is restarted; then nothing was lost.
func TestNodeKeyIsPutBack(t *testing.T) {
	for name, reload := range map[string]bool{"with a reload": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			d := start(t, opts{})
			was := d.status().Node.ID
			file, kept := filepath.Join(d.home, "keystore", "node.key"), filepath.Join(d.home, "nk")
			move := func(from, to string) {
				t.Helper()
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
			d.stop()
			move(file, kept)
			d = d.again(t, opts{})
			made := d.status().Node.ID
			if p := d.status().Problems; len(p) != 1 || !strings.Contains(p[0].Text, "another was made") || !strings.Contains(p[0].Fix, file) {
				t.Fatalf("without it: %+v", p)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if reload {
				if r := d.mustReload(); len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Text, "is missing") {
					t.Errorf("removed while it runs: %+v", r)
				}
			}
			move(kept, file)
			if reload {
				r := d.mustReload()
				if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Text, "the key of node "+was[:8]) || !strings.Contains(r.Problems[0].Text, "as node "+made[:8]) {
					t.Errorf("put back: %+v", r)
				}
				if p := d.status().Problems; len(p) != 1 || p[0] != r.Problems[0] {
					t.Errorf("status after it: %+v", p)
				}
			}
			d = d.again(t, opts{})
			if s := d.status(); s.Node.ID != was || len(s.Problems) != 0 {
				t.Errorf("after the restart: node %s, which was %s; %+v", s.Node.ID, was, s.Problems)
			}
			if r := d.mustReload(); len(r.Problems)+len(r.Acknowledged) != 0 {
				t.Errorf("a reload after it: %+v", r)
			}
		})
	}
}

func remove(t *testing.T, home, pattern string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(home, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

func cut(t *testing.T, home, name string) {
	t.Helper()
	if err := os.Truncate(filepath.Join(home, name), 5000); err != nil {
		t.Fatal(err)
	}
}

// loseLog leaves what a killed daemon does whose log is removed then.
func loseLog(t *testing.T, home, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(home, name+".open"), []byte("00000000000000123456\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A port that was chosen is what contacts know: it outlives the store, and the file
// that holds it.
func TestPortOutlivesTheStore(t *testing.T) {
	for _, lose := range []string{store.File + "*", portFile} {
		t.Run(lose, func(t *testing.T) {
			testutil.LeakCheck(t)
			d := start(t, opts{})
			port := d.port()
			d.stop()
			remove(t, d.home, lose)
			d = d.again(t, opts{})
			if got := d.port(); got != port {
				t.Errorf("the port was %d, now it is %d", port, got)
			}
			if b, err := os.ReadFile(filepath.Join(d.home, portFile)); err != nil || string(b) != fmt.Sprintln(port) {
				t.Errorf("kept is %q, %v", b, err)
			}
		})
	}
	for text, want := range map[string]int{"4100\n": 4100, "": 0, "0": 0, "65536": 0, "-1": 0, "x": 0, "41 00": 0} {
		if got := parsePort(text); got != want {
			t.Errorf("%q is port %d", text, got)
		}
	}
}

// What was repaired while the daemon ran is told by the next one too, until
// somebody has seen it.
func TestRepairsInUseAreTold(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	r := &sqlite.Recovery{MovedTo: "/a/b.damaged", Cause: "two\nlines", Tables: []sqlite.TableRecovery{{Name: "inbox", Lost: true, Missing: 3}}}
	n := d.node.Load()
	n.mail.recovered(r)
	n.mail.recovered(r)
	n.repaired(r)
	told := func(when string) {
		t.Helper()
		want := []string{"the messages were damaged while in use and repaired, lost are 3 received messages (with those that were delivered or removed before); what it was is in /a/b.damaged (two lines) (2 times)",
			"the store was damaged while in use and made anew, nothing was lost; what it was is in /a/b.damaged"}
		var got []string
		for _, p := range d.status().Problems {
			got = append(got, p.Text)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q", when, got)
		}
	}
	told("at once")
	d = d.again(t, opts{})
	told("after another start")
	d.mustReload()
	d = d.again(t, opts{})
	if p := d.status().Problems; len(p) != 0 {
		t.Errorf("after a reload: %+v", p)
	}
}

// A line for each kind of loss, and not more than can be read.
func TestLossesAreBounded(t *testing.T) {
	var lines []string
	for n := range 100 {
		lines = addLoss(lines, fmt.Sprintf("the store was damaged; what it was is in /%d (cause %d)", n, n))
	}
	if want := "the store was damaged; what it was is in /99 (cause 99) (100 times)"; len(lines) != 1 || lines[0] != want {
		t.Errorf("%q", lines)
	}
	for n := range 100 {
		lines = addLoss(lines, fmt.Sprintf("lost are %d contacts; what it was is in /x", n))
	}
	if len(lines) != lossesKept || !strings.HasSuffix(lines[0], "(100 times)") || !strings.HasPrefix(lines[1], "lost are 93 ") || !strings.HasPrefix(lines[lossesKept-1], "lost are 99 ") {
		t.Errorf("%q", lines)
	}
}

// An identity whose key file is gone is offline and says so; no other is made,
// and it can be given up.
func TestMissingKeyIsTold(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	own := d.own()
	d.stop()
	key := d.identityKey(own.ID52)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	d = d.again(t, opts{})
	_, err := d.c.Call(limited(t), to(api.TargetSelf, api.ProtocolEcho, hello))
	e := wantCode(t, err, api.CodeLocked)
	wantText(t, e.Message, own.Name, key, "missing")
	p := d.status().Problems
	if len(p) == 0 || !strings.Contains(p[0].Text, key) {
		t.Errorf("problems: %+v", p)
	}
	verb[struct{}](t, d.c, api.VerbIdentityRemove, api.IdentityArgs{Identity: own.Name})
	if now := d.own(); now.ID52 == own.ID52 || now.Name != own.Name {
		t.Errorf("the next identity is %+v", now)
	}
}

// An administrator whose budget is used up can still look and act.
func TestSpareConnections(t *testing.T) {
	var s spare
	full := api.Errorf(api.CodeOverBudget, "full")
	var releases []func()
	for range spareConnections {
		release, err := s.take(full)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	if _, err := s.take(full); err != full {
		t.Errorf("one more than there are: %v", err)
	}
	releases[0]()
	if _, err := s.take(full); err != nil {
		t.Errorf("one was given back: %v", err)
	}
}

// What a reload could not forget on the disk is told on.
func TestLossesOfARefusedReload(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	n := d.node.Load()
	n.lost("something was lost", "", nil)
	if err := n.keepLosses(t.Context()); err != nil {
		t.Fatal(err)
	}
	away := d.home + ".away"
	if err := os.Rename(d.home, away); err != nil {
		t.Fatal(err)
	}
	gone, err := n.forgetLosses(t.Context())
	if err := os.Rename(away, d.home); err != nil {
		t.Fatal(err)
	}
	if err == nil || gone != nil || len(n.lossProblems()) != 1 {
		t.Errorf("told %q, %v, left %+v", gone, err, n.lossProblems())
	}
	if gone, err = n.forgetLosses(t.Context()); err != nil || len(gone) != 1 || len(n.lossProblems()) != 0 {
		t.Errorf("the next one told %q, %v, left %+v", gone, err, n.lossProblems())
	}
}

// That a file was removed in use is told, also if all that is beside it went with it: of
// messages as the loss that it is, of the store that it was made anew from memory.
func TestFilesRemovedInUse(t *testing.T) {
	for file, c := range map[string]struct {
		write     func(d *testDaemon) error
		text, fix string
	}{
		messages.File: {func(d *testDaemon) error { return d.node.Load().mail.store.Heal(t.Context()) }, "removed while in use", "restore a backup"},
		store.File:    {func(d *testDaemon) error { return d.node.Load().store.SetMeta(t.Context(), "a", "b") }, removedStore, "acknowledge it: "},
	} {
		for _, files := range []string{file, file + "*"} {
			t.Run(files, func(t *testing.T) {
				testutil.LeakCheck(t)
				d := start(t, opts{})
				remove(t, d.home, files)
				if err := c.write(d); err != nil {
					t.Fatal(err)
				}
				p := d.status().Problems
				if len(p) != 1 || !strings.Contains(p[0].Text, c.text) || strings.HasSuffix(p[0].Text, " ") || !strings.Contains(p[0].Fix, c.fix) {
					t.Errorf("%+v", p)
				}
			})
		}
	}
}

// What is in a file's place is told, and left alone; once the file is back all goes on.
func TestPipeInAFilesPlace(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	path := filepath.Join(d.home, messages.File)
	heal := func() error { return d.node.Load().mail.store.Heal(t.Context()) } // a write
	if err := errors.Join(heal(), os.Rename(path, path+".aside"), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := heal(); err == nil {
		t.Error("a pipe takes messages")
	}
	told := func(p api.Problem) bool {
		return strings.Contains(p.Text, path+": not a plain file of our own") && strings.HasSuffix(p.Text, "; the messages in it are not served, changes are refused") && strings.HasPrefix(p.Fix, "put the file back")
	}
	if p := d.status().Problems; !slices.ContainsFunc(p, told) {
		t.Errorf("%+v", p)
	}
	if err := os.Rename(path+".aside", path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is well", func() bool { return len(d.status().Problems) == 0 })
}
