package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// On a disk that is mounted read-only no daemon can start, which is said with a
// way out, and none runs, which is no failure of a stop.
func TestReadOnlyDisk(t *testing.T) {
	in := func(script string) (string, error) {
		out, err := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
			`mount -t tmpfs none "$1" && mkdir -m 700 "$1/old" && touch "$1/old/daemon.lock" && mount -o remount,ro "$1" || exit 99; `+script,
			"sh", t.TempDir(), filepath.Join(binaries, "fastn")).CombinedOutput()
		return string(out), err
	}
	if out, err := in("exit 0"); err != nil {
		t.Skipf("no mount of one's own here: %v\n%s", err, out)
	}
	hint := "hint: its disk is mounted read-only: make it writable, or name a folder on another disk with --home\n"
	for _, home := range []string{"", "/old", "/new"} {
		out, err := in(`"$2" --home "$1` + home + `" daemon start`)
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != exitFailed || !strings.HasSuffix(out, hint) {
			t.Errorf("start in %q: %v\n%s", home, err, out)
		}
		if out, err := in(`"$2" --home "$1` + home + `" daemon stop`); err != nil || out != "none runs\n" {
			t.Errorf("stop in %q: %v\n%s", home, err, out)
		}
	}
}
