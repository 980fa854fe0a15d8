package p2p_test

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
)

// Without a limit of the control group a small machine is not taken for one of
// 2 GiB.
func TestMemoryLimit(t *testing.T) {
	for _, c := range []struct{ limit, total, want int64 }{
		{0, 512 << 20, 512 << 20},
		{0, 24 << 30, 2 << 30},
		{0, 0, 2 << 30},
		{100 << 20, 512 << 20, 100 << 20},
		{8 << 30, 512 << 20, 512 << 20},
	} {
		if got := p2p.MemoryLimit(c.limit, c.total); got != c.want {
			t.Errorf("limit %d of %d bytes: %d, want %d", c.limit, c.total, got, c.want)
		}
	}
	o, err := p2p.Options{Key: p2ptest.Key(t), TCP: true, MemoryLimit: 1 << 50}.Defaults()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Skip(err)
	}
	kib, err := strconv.ParseInt(string(regexp.MustCompile(`MemTotal: +(\d+) kB`).FindSubmatch(b)[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.MemoryLimit >> 10; got != kib {
		t.Errorf("the machine has %d KiB, taken for %d", kib, got)
	}
}
