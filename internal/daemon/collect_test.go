package daemon

import (
	"os"
	"runtime"
	"runtime/metrics"
	"testing"
)

func TestPercentFor(t *testing.T) {
	for live, want := range map[uint64]int{0: 200, 1 << 20: 200, 3 << 20: 166, 4 << 20: 100, 100 << 20: 100} {
		if got := percentFor(live); got != want {
			t.Errorf("%d bytes: %d, want %d", live, got, want)
		}
	}
}

// The heap grows to what is said where little is in use, and no further than Go's own
// would where much is.
func TestCollectSeldom(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC is set")
	}
	percent := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	becomes := func(what string, is func(uint64) bool) {
		t.Helper()
		eventually(t, what, func() bool {
			runtime.GC()
			return is(percent())
		})
	}
	stop := CollectSeldom()
	defer stop()
	held := make([]byte, 32<<20)
	becomes("as Go does, while much is in use", func(p uint64) bool { return p == goPercent })
	runtime.KeepAlive(held)
	held = nil
	if before := liveHeap(); before < 40<<20 { // else the other tests of this process hold much
		becomes("more, once little is", func(p uint64) bool { return p > goPercent || liveHeap() > smallHeap/2 })
	}
	stop()
	if p := percent(); p != goPercent {
		t.Errorf("after its end: %d", p)
	}
}
