package daemon

import (
	"os"
	"runtime"
	"runtime/metrics"

	"github.com/fastn-stack/fastnd/service/api"
)

// runtimeNow counts what this process is made of. It stops nothing: numbers that
// belong together may differ by what changes meanwhile.
func runtimeNow(idle int) *api.Runtime {
	r := &api.Runtime{Goroutines: runtime.NumGoroutine(), IdleGoroutines: idle}
	// Before the first collection nothing is known to be live: then it is all there is.
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	for _, s := range heap {
		if r.HeapBytes == 0 && s.Value.Kind() == metrics.KindUint64 {
			r.HeapBytes = int64(s.Value.Uint64())
		}
	}
	if list, err := os.ReadDir("/proc/self/fd"); err == nil {
		r.OpenFiles = len(list) - 1 // without the folder's own
	}
	return r
}
