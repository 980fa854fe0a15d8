package daemon

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

func TestSecondDaemonInOneHome(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	_, err := New(t.Context(), d.options())
	e := wantCode(t, err, api.CodeConflict)
	wantText(t, e.Message, "another fastnd", d.home)
	if Hint(err) != `"fastn --home `+d.home+` daemon status" tells of it` {
		t.Errorf("hint: %s", Hint(err))
	}
	wantEcho(t, d.c, api.TargetSelf) // the first has its socket still
	d.stop()
	if _, err := os.Lstat(filepath.Join(d.home, api.HomeSocket)); err == nil {
		t.Error("the socket is left behind")
	}
	wantEcho(t, start(t, opts{home: d.home}).c, api.TargetSelf)
}

// A killed daemon leaves its socket.
func TestStaleSocket(t *testing.T) {
	testutil.LeakCheck(t)
	home := newHome(t)
	write(t, filepath.Join(home, api.HomeSocket), nil)
	d := start(t, opts{home: home})
	wantEcho(t, d.c, api.TargetSelf)
	info, err := os.Stat(filepath.Join(home, api.HomeSocket))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
}

func TestHomeThatIsTooLong(t *testing.T) {
	testutil.LeakCheck(t)
	home := filepath.Join(newHome(t), strings.Repeat("x", 100))
	_, err := New(t.Context(), Options{Home: home, Stderr: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "107") || Hint(err) == "" {
		t.Errorf("%v (hint: %s)", err, Hint(err))
	}
	if _, err := os.Lstat(home); err == nil {
		t.Error("the home was made all the same")
	}
}

func TestHomeThatIsAFile(t *testing.T) {
	testutil.LeakCheck(t)
	home := filepath.Join(newHome(t), "file")
	write(t, home, nil)
	if _, err := New(t.Context(), Options{Home: home, Stderr: io.Discard}); err == nil || !strings.Contains(err.Error(), home) {
		t.Errorf("%v", err)
	}
}

func TestCheckConfig(t *testing.T) {
	testutil.LeakCheck(t)
	home := newHome(t)
	path := filepath.Join(home, homeConfig)
	for _, c := range []struct {
		name, text string
		bad        string // in the error; "" for none
	}{
		{"empty", "", ""},
		{"good", loopbackOnly, ""},
		{"unknown key", "[p2p]\nprot = 1\n", "p2p.prot"},
		{"wrong type", "[p2p]\nport = \"x\"\n", "p2p.port"},
		{"no TOML", "hello\n", homeConfig},
	} {
		write(t, path, []byte(c.text))
		err := CheckConfig(Options{Home: home})
		if (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.bad == "" {
			continue
		}
		// A per-user daemon does not start with it: somebody is there to read why.
		if _, err := New(t.Context(), Options{Home: home, Stderr: io.Discard}); err == nil {
			t.Errorf("%s: a daemon started", c.name)
		}
	}
	if names, err := os.ReadDir(home); err != nil || len(names) != 1 {
		t.Errorf("the check touched the home: %v, %v", names, err)
	}
	if err := CheckConfig(Options{Home: home, ConfigPath: filepath.Join(home, "missing.toml")}); err == nil {
		t.Error("a file that was named and is missing is no error")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := CheckConfig(Options{Home: home}); err != nil {
		t.Errorf("the usual file may be missing: %v", err)
	}
}

// What a locked daemon took is given back, each time.
func TestCloseGivesEverythingBack(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.stop()
	mode(t, d.nodeKey(), 0o644)
	for range 3 {
		d = d.again(t, opts{})
		if _, err := d.reload(); api.CodeOf(err) != api.CodeLocked {
			t.Fatal(full(err))
		}
	}
}

// Every file of a home is its owner's alone.
func TestHomeIsPrivate(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.own()
	err := filepath.Walk(d.home, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A home that others may write to is none of the user's own: they could put
// their configuration and grants there.
func TestOpenHomeIsRefused(t *testing.T) {
	home := t.TempDir()
	if err := os.Chmod(home, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), Options{Home: home, Stderr: io.Discard})
	e := api.AsError(err)
	if e == nil || e.Code != api.CodeNotPermitted || e.Hint != "chmod 700 "+api.ShellQuote(home) {
		t.Fatalf("%v, hint %q", err, Hint(err))
	}
	if out, err := exec.Command("sh", "-c", e.Hint).CombinedOutput(); err != nil {
		t.Fatalf("the hint: %v: %s", err, out)
	}
	d, err := New(t.Context(), Options{Home: home, Stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// A home has one daemon, also where somebody took its lock for rubbish.
func TestHomeHasOneDaemon(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	for range 2 {
		_, err := New(t.Context(), Options{Home: d.home, Stderr: io.Discard})
		if api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "another fastnd runs") {
			t.Fatalf("a second one: %v", err)
		}
		_ = os.Remove(filepath.Join(d.home, homeLock)) // gone the second time
	}
	d.own() // it goes on
	d.stop()
	d.again(t, opts{}).own()
}
