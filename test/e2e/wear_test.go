package e2e

import (
	"strconv"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// size is what a daemon has in use.
type size struct {
	api.Runtime
	rss int // KiB
}

func sizeOf(t *testing.T, m *nspawn.Machine) size {
	t.Helper()
	s := status(t, m)
	if s.Daemon.Runtime == nil {
		t.Fatal("the status does not tell what the daemon has in use")
	}
	rss, err := strconv.Atoi(m.Must("awk", "/^VmRSS:/ {print $2}", "/proc/"+mainPID(m)+"/status"))
	if err != nil {
		t.Fatal(err)
	}
	return size{*s.Daemon.Runtime, rss}
}

// worn has user, on the first machine, make calls and streams to peer. The daemons
// of all machines must then be as large as they were when they had done some of it.
func worn(t *testing.T, m *nspawn.Machine, user, peer string, others ...*nspawn.Machine) {
	t.Helper()
	rounds := testutil.Rounds(500, 5_000) // of two calls each
	wear := func(n int) {
		t.Helper()
		if got := m.MustAs(user, "probe", "wear", peer, strconv.Itoa(n)); got != "worn" {
			t.Fatalf("probe said %q", got)
		}
	}
	wear(500)
	machines := append([]*nspawn.Machine{m}, others...)
	before := map[*nspawn.Machine]size{}
	for _, m := range machines {
		before[m] = sizeOf(t, m)
	}
	wear(rounds)
	for _, m := range machines {
		flat(t, m, before[m])
	}
}

// flat waits until the daemon is as large as it was.
func flat(t *testing.T, m *nspawn.Machine, was size) {
	t.Helper()
	is := sizeOf(t, m)
	defer func() {
		t.Logf("%s: %d KiB, %+v; before: %d KiB, %+v", m.Must("hostname"), is.rss, is.Runtime, was.rss, was.Runtime)
	}()
	// What has just been closed takes a moment to be gone, and a few goroutines are
	// kept for peers' next requests.
	m.Eventually(soon, "descriptors and goroutines to be as many as before", func() bool {
		is = sizeOf(t, m)
		return is.OpenFiles <= was.OpenFiles && is.Goroutines <= was.Goroutines+8
	})
	if float64(is.rss) > 1.1*float64(was.rss)+4<<10 {
		t.Errorf("the daemon has grown from %d KiB to %d KiB", was.rss, is.rss)
	}
}
