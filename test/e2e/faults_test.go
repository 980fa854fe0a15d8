package e2e

import (
	"testing"

	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// TestFaults lets one machine go through what disks and administrators do to it.
func TestFaults(t *testing.T) { onEach(t, testFaults) }

func testFaults(t *testing.T, s suite) {
	m := boot(t, s, "faults")
	install(t, m)
	addUser(m, "alice", "fastn")
	step := func(name string, f func(*testing.T, *nspawn.Machine)) {
		t.Run(name, func(t *testing.T) { f(t, m.For(t)) })
	}
	step("the repository holds both architectures", bothArchitectures)
	enable(m)
	step("a disk that is full, without inodes, read-only", fullDisk)
	step("a damaged store", damagedStore)
	step("drop-ins that take away too much", dropIns)
}
