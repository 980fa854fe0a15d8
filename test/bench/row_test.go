package main

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// A missed budget fails the run by name, also one that was compared with nothing;
// what was met, is only shown or was not measured does not, and the last is told.
func TestMissedBudgetsFail(t *testing.T) {
	good := []row{atMost("a", 1, "µs", 1, "base", 1), atLeast("b", 7, "MiB/s", 10, "base", 0.7), under("c", 40, "MiB", 40), shown("d", 1e9, "/s"), beside("e", 9, "µs", 1, "base")}
	skipped := atMost("slow", 0, "ms", 0, "ssh", 1).unmeasured(errors.New("no sshd"))
	b := &bench{rows: append(good, skipped)}
	if err := b.check(); err != nil {
		t.Errorf("nothing was missed: %v", err)
	}
	if skipped.Met {
		t.Error("a row that was not measured counts as met")
	}
	var table, told strings.Builder
	if err := b.print(&table); err != nil {
		t.Fatal(err)
	}
	b.tellUnmeasured(&told)
	if n := strings.Count(table.String(), "not measured"); n != 1 || strings.Contains(table.String(), "NaN") {
		t.Errorf("%d rows are told as not measured:\n%s", n, table.String())
	}
	if got := told.String(); got != "not measured: slow, beside ssh: no sshd\n" {
		t.Errorf("told %q", got)
	}
	bad := map[string]row{
		"too slow, beside base: 1.01 ×, want ≤ 1 ×":  atMost("too slow", 101, "µs", 100, "base", 1),
		"too few, beside base: 0.69 ×, want ≥ 0.7 ×": atLeast("too few", 69, "/s", 100, "base", 0.7),
		"too big: 41 MiB, want ≤ 40 MiB":             under("too big", 41, "MiB", 40),
		"not a number: NaN MiB, want ≤ 40 MiB":       under("not a number", math.NaN(), "MiB", 40),
	}
	for want, r := range bad {
		b := &bench{rows: append(good, r)}
		if err := b.check(); err == nil || err.Error() != "budget not met: "+want {
			t.Errorf("%q: %v", want, err)
		}
	}
}
