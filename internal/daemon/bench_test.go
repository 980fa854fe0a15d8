package daemon

import (
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// BenchmarkCall is a warm call through two whole daemons, all in this process;
// for profiles. test/bench measures it between processes, beside its baseline.
func BenchmarkCall(b *testing.B) {
	alice, _ := pair(b)
	q := to("bob", api.ProtocolEcho, hello)
	ctx := limited(b)
	if _, err := alice.c.Call(ctx, q); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := alice.c.Call(ctx, q); err != nil {
			b.Fatal(err)
		}
	}
}
