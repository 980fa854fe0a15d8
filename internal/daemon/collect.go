package daemon

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// smallHeap is how large the heap may grow before its garbage is collected,
	// however little of it is in use. Go's own, 4 MiB, is full after a few hundred
	// requests: then more than one in a hundred meets a collection, which takes the
	// processors that it waits for.
	smallHeap = 8 << 20
	// goPercent is Go's own: what is in use may double.
	goPercent = 100
	// mostPercent has Go's least heap be smallHeap.
	mostPercent = goPercent * smallHeap / (4 << 20)
	// percentStep is a change that is worth stopping all for.
	percentStep = 10
)

// collector sets after each collection how much garbage the next one waits for.
type collector struct {
	mu      sync.Mutex
	percent int
	stopped bool
}

// sentinel is in use by nobody, and so is gone after each collection.
type sentinel struct{ _ *sentinel }

// CollectSeldom has this process collect garbage when its heap has smallHeap, or
// twice what is in use if that is more. GOGC in the environment counts more. After
// stop it is as before.
func CollectSeldom() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	c := &collector{percent: goPercent}
	c.adapt()
	return c.stop
}

func (c *collector) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	debug.SetGCPercent(goPercent)
}

func (c *collector) adapt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	if want := percentFor(liveHeap()); max(want-c.percent, c.percent-want) >= percentStep {
		debug.SetGCPercent(want)
		c.percent = want
	}
	runtime.AddCleanup(new(sentinel), (*collector).adapt, c)
}

// percentFor is the percentage by which live bytes become smallHeap, within bounds.
func percentFor(live uint64) int {
	if live >= smallHeap/2 {
		return goPercent
	}
	return int(min(mostPercent, 100*(smallHeap-live)/max(live, 1)))
}

// liveHeap is what the last collection left.
func liveHeap() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}
