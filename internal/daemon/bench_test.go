package daemon

import (
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
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

// BenchmarkSend is a message from a client to the disk of another daemon and the
// news of that back, both daemons in this process.
func BenchmarkSend(b *testing.B) {
	alice, _ := pair(b)
	m := client.Message{Target: "bob", Protocol: api.ProtocolText, Data: text("hello")}
	ctx := b.Context()
	for b.Loop() {
		sent, err := alice.c.Send(ctx, m)
		if err != nil {
			b.Fatal(full(err))
		}
		if _, err := alice.c.WaitFinal(ctx, sent.MessageID); err != nil {
			b.Fatal(full(err))
		}
	}
}
