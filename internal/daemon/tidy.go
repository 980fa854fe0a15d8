package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// tidyEvery is how often it is looked whether the daemon has become idle.
	tidyEvery = 5 * time.Second
	// tidyQuiet is what an idle daemon allocates in that time at most, in bytes.
	tidyQuiet = 256 << 10
	// tidyWorth is what must have been allocated since the last time.
	tidyWorth = 8 << 20
)

// tidy gives memory back to the machine when the daemon has become idle. Go
// collects garbage by how much was allocated, and keeps the room: a daemon that
// was busy once would hold twice what it needs for as long as it idles.
type tidy struct {
	allocated func() uint64 // bytes, since the start
	release   func()

	last     uint64 // what allocated told when it was looked
	released uint64 // what it told after the last release
}

func newTidy() *tidy { return &tidy{allocated: allocated, release: release} }

// run looks until ctx ends.
func (t *tidy) run(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.look()
		}
	}
}

func (t *tidy) look() {
	now := t.allocated()
	idle := now-t.last <= tidyQuiet
	t.last = now
	if idle && now-t.released >= tidyWorth {
		t.release()
		t.last = t.allocated()
		t.released = t.last
	}
}

func release() {
	runtime.GC() // with each, stacks that are mostly free become half as large
	debug.FreeOSMemory()
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
