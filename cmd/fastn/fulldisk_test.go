package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A disk that is full keeps nobody from reading mail: only that it was read is not
// noted, which is said.
func TestMailIsReadOnAFullDisk(t *testing.T) {
	if out, err := exec.Command("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "none", t.TempDir()).CombinedOutput(); err != nil {
		t.Skipf("no mount of one's own here: %v\n%s", err, out)
	}
	out, err := exec.Command("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", `
		mount -t tmpfs -o size=16m none "$1" || exit 99
		home=$1/home
		run() { "$fastn" --home "$home" "$@"; }
		fastn=$2
		run daemon start && run id new me && run send self "first" --wait=delivered && run send self "second" --wait=delivered || exit 98
		cat /dev/zero > "$1/big" 2> /dev/null
		echo "--- full"
		run inbox read
		echo "--- $?"
		rm "$1/big"
		run daemon stop`,
		"sh", t.TempDir(), filepath.Join(binaries, "fastn")).CombinedOutput()
	_, after, _ := strings.Cut(string(out), "--- full\n")
	if !strings.Contains(after, "first") || !strings.Contains(after, "second") || !strings.Contains(after, " is full") || !strings.Contains(after, "--- 1\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
