package fire

import (
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// What the tests with hostile peers call a leak: it is seen among hundreds of
// goroutines that are kept for the next requests, when it is one each time.
func TestLeakIsSeen(t *testing.T) {
	at := func(busy, idle, files int, heap int64) footprint {
		return footprint{Runtime: api.Runtime{Goroutines: busy + idle, IdleGoroutines: idle, OpenFiles: files, HeapBytes: heap}}
	}
	base := at(60, 400, 30, 8<<20)
	for _, c := range []struct {
		name string
		now  footprint
		ok   bool
	}{
		{"as before", base, true},
		{"more that are kept", at(60, 512, 30, 8<<20), true},
		{"fewer that are kept hide nothing", at(64, 200, 30, 8<<20), false},
		{"four goroutines", at(64, 400, 30, 8<<20), false},
		{"three files", at(60, 400, 33, 8<<20), false},
		{"an eighth of the heap", at(60, 400, 30, 9<<20), false},
	} {
		if got := c.now.within(base); got != c.ok {
			t.Errorf("%s: within is %t", c.name, got)
		}
	}
	rounds := func(n int, f func(i int) footprint) (list []footprint) {
		for i := range n {
			list = append(list, f(i))
		}
		return list
	}
	for _, c := range []struct {
		want   string
		rounds []footprint
	}{
		{"", rounds(6, func(int) footprint { return base })},
		{"", rounds(6, func(i int) footprint { return at(60+i%2, 400, 30+i%3, 8<<20+int64(i)<<10) })},
		{"", rounds(6, func(i int) footprint { return at(60+min(i, 1), 400, 30, 8<<20) })},
		{"", rounds(1, func(int) footprint { return base })},
		{"goroutines", rounds(6, func(i int) footprint { return at(60+i, 400-i, 30, 8<<20) })},
		{"open files", rounds(6, func(i int) footprint { return at(60, 400, 30+i, 8<<20) })},
		{"memory", rounds(6, func(i int) footprint { return at(60, 400, 30, 8<<20+int64(i)<<16) })},
	} {
		if got := climbs(c.rounds); got != c.want {
			t.Errorf("what grows in %+v is %q, want %q", c.rounds, got, c.want)
		}
	}
}
