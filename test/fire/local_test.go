package fire

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/test/process"
)

// startSystem runs a daemon of the whole machine until the test ends.
func startSystem(t *testing.T, config ...string) *process.Daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to run programs of several users")
	}
	var d *process.Daemon
	err := atPriority(t, daemonPriority, func() (err error) {
		d, err = process.StartSystem(context.WithoutCancel(t.Context()), bin, process.Options{Config: config, Stderr: io.Discard})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, d)
	return d
}

// Whatever one user does to the control socket, he gets the promised answers and
// nothing else, another user gets his within twice the time of his own baseline,
// and afterwards the daemon holds what it held before.
func TestLocalAttacks(t *testing.T) {
	d := startSystem(t, "[budgets]", fmt.Sprintf("per_uid_streams = %d", streamsMost))
	other := runUser(t, d, bystanderUID, bystander)
	other.measure(t, testutil.Rounds(200, 5000)) // until the heap is as large as it becomes
	all := attacks()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) { besiege(t, d, other, name) })
	}
}

// unlimited is the attack by what is granted and has no rate: calls as fast as they
// are answered. What others notice of it is told only; ARCHITECTURE.md says why.
const unlimited = "call-rate"

func besiege(t *testing.T, d *process.Daemon, other *user, name string) {
	samples := testutil.Rounds(40, 1000)
	attacker := runUser(t, d, attackerUID, name)
	if testutil.Torture() {
		attacker.ask(t, "go") // what the first time makes is kept for the next
		attacker.ask(t, "stop")
	}
	before := heldBy(t, d)
	var ratios []float64
	for range testutil.Rounds(1, 5) {
		base := other.measure(t, samples/2)
		attacker.ask(t, "go")
		loaded := other.measure(t, samples)
		done := attacker.ask(t, "stop")
		base.add(other.measure(t, samples/2))
		ratio := max(slower(loaded.Warm, base.Warm), slower(loaded.Fresh, base.Fresh))
		ratios = append(ratios, ratio)
		t.Logf("p99 of others %v warm, %v fresh; their baseline %v, %v: %.2f x (p50 %v, %v; attack %s)",
			p99(loaded.Warm), p99(loaded.Fresh), p99(base.Warm), p99(base.Fresh), ratio, p50(loaded.Warm), p50(base.Warm), done)
	}
	slices.Sort(ratios)
	ratio := ratios[len(ratios)/2]
	t.Logf("%s: others wait %.2f x as long", name, ratio)
	// A short form does not fail on time: others were served, which it has checked.
	if testutil.Torture() && ratio > 2 && name != unlimited {
		t.Errorf("%s: others wait %.2f x as long, at most 2 x is wanted", name, ratio)
	}
	before.restored(t, d, other)
}

// slower is the ratio of the 99th percentiles.
func slower(loaded, base []time.Duration) float64 {
	return float64(p99(loaded)) / float64(p99(base))
}

func p99(all []time.Duration) time.Duration { return percentile(all, 0.99) }
func p50(all []time.Duration) time.Duration { return percentile(all, 0.5) }

// held is what a daemon holds: files and resident memory.
type held struct {
	files int
	kib   float64
}

func heldBy(t *testing.T, d *process.Daemon) held {
	t.Helper()
	files, err := d.Descriptors()
	if err != nil {
		t.Fatal(err)
	}
	kib, err := d.RSS()
	if err != nil {
		t.Fatal(err)
	}
	return held{files, kib}
}

// restored waits until the daemon, which goes on working for another user, holds
// no more than before, within a tenth.
func (h held) restored(t *testing.T, d *process.Daemon, other *user) {
	t.Helper()
	var now held
	for deadline := time.Now().Add(patience); ; {
		now = heldBy(t, d)
		memory := now.kib <= h.kib*1.1 || !testutil.Torture() // in the short form it is not warm
		if now.files*10 <= h.files*11 && memory {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("the daemon held %+v before, and %+v after", h, now)
			break
		}
		other.measure(t, 20)
	}
	t.Logf("held %d files and %.0f KiB, now %d and %.0f", h.files, h.kib, now.files, now.kib)
}
