package e2e

import (
	"runtime"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// bothArchitectures: a machine finds its own package in the repository, and one
// of the other architecture finds the same version. packaging/deb/same, run by
// make apt-repo, holds their contents against one another. The short form has the
// machine's own package only.
func bothArchitectures(t *testing.T, m *nspawn.Machine) {
	arches := []string{runtime.GOARCH}
	if testutil.Torture() {
		arches = []string{"amd64", "arm64"}
	}
	own := m.Must("dpkg-query", "--show", "--showformat=${Architecture} ${Version}", "fastn")
	for _, arch := range arches {
		version := strings.TrimPrefix(own, m.Must("dpkg", "--print-architecture")+" ")
		if r := aptOf(m, arch, "apt-get", "update"); r.Code != 0 || strings.Contains(r.Out+r.Err, "\nW: ") {
			t.Fatalf("%s: %v", arch, r)
		}
		if r := aptOf(m, arch, "apt-cache", "show", "fastn"); !strings.Contains(r.Out, "\nArchitecture: "+arch+"\n") || !strings.Contains(r.Out, "\nVersion: "+version+"\n") {
			t.Errorf("%s finds, want version %s: %v", arch, version, r)
		}
		// Checks the signature's chain down to the file.
		if r := aptOf(m, arch, "apt-get", "download", "fastn"); r.Code != 0 {
			t.Errorf("%s: %v", arch, r)
		}
		file := "/tmp/" + arch + "/fastn_" + version + "_" + arch + ".deb"
		if got := m.Must("dpkg-deb", "--show", "--showformat=${Architecture} ${Version}", file); got != arch+" "+version {
			t.Errorf("downloaded for %s: %s", arch, got)
		}
	}
}

// aptOf runs a command of apt's as a machine of that architecture would, with
// lists of its own, in /tmp/ARCH.
func aptOf(m *nspawn.Machine, arch string, command ...string) nspawn.Result {
	script := `set -eu; dir=/tmp/$1; shift; mkdir -p $dir/lists/partial $dir/cache/archives/partial; cd $dir; exec "$@"`
	options := []string{"-o", "APT::Architecture=" + arch, "-o", "APT::Architectures::=" + arch, "-o", "APT::Sandbox::User=root",
		"-o", "Dir::State::lists=/tmp/" + arch + "/lists", "-o", "Dir::Cache=/tmp/" + arch + "/cache",
		"-o", "Dir::Etc::sourcelist=" + sourceList, "-o", "Dir::Etc::sourceparts=-"}
	args := append([]string{"sh", "-c", script, "sh", arch, command[0]}, options...)
	return m.Run(append(args, command[1:]...)...)
}
