package daemon

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTidy(t *testing.T) {
	const mib = 1 << 20
	for _, step := range []struct {
		name      string
		allocates []uint64 // between looks
		releases  []bool
	}{
		{"busy", []uint64{10 * mib, 10 * mib, 10 * mib}, []bool{false, false, false}},
		{"busy, then idle", []uint64{10 * mib, 1000, 1000, 1000}, []bool{false, true, false, false}},
		{"twice", []uint64{10 * mib, 1000, 10 * mib, 1000}, []bool{false, true, false, true}},
		{"little", []uint64{mib, 1000, mib, 1000}, []bool{false, false, false, false}},
		{"much in little pieces", []uint64{5 * mib, 1000, 5 * mib, 1000}, []bool{false, false, false, true}},
		{"barely idle", []uint64{10 * mib, tidyQuiet}, []bool{false, true}},
		{"not quite idle", []uint64{10 * mib, tidyQuiet + 1}, []bool{false, false}},
	} {
		t.Run(step.name, func(t *testing.T) {
			var total uint64
			released := false
			// The collection itself allocates a little.
			td := &tidy{allocated: func() uint64 { return total }, release: func() { released = true; total += 100 }}
			for i, n := range step.allocates {
				total += n
				released = false
				if td.look(); released != step.releases[i] {
					t.Errorf("look %d: released %v, want %v", i, released, step.releases[i])
				}
			}
		})
	}
}

func TestTidyRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := make(chan time.Time)
		td := &tidy{allocated: func() uint64 { looks <- time.Now(); return 0 }, release: func() { t.Error("there was nothing to release") }}
		start := time.Now()
		go td.run(t.Context())
		for i := range 3 {
			if d := (<-looks).Sub(start); d != time.Duration(i+1)*tidyEvery {
				t.Errorf("look %d after %v", i, d)
			}
		}
	})
}

func TestAllocated(t *testing.T) {
	before := allocated()
	kept := make([]byte, 1<<20)
	if n := allocated() - before; n < uint64(len(kept)) {
		t.Errorf("%d bytes were counted for %d", n, len(kept))
	}
}
