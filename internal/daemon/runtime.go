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
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	if metrics.Read(heap); heap[0].Value.Kind() == metrics.KindUint64 {
		r.HeapBytes = int64(heap[0].Value.Uint64())
	}
	if list, err := os.ReadDir("/proc/self/fd"); err == nil {
		r.OpenFiles = len(list) - 1 // without the folder's own
	}
	return r
}
