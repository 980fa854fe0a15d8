package fire

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// Strangers at eight addresses, each with a node and an identity of its own that
// asks without pause, over streams and connections that come and go: a contact is
// served all the while, and what is refused is counted. In the long form its calls
// take at most twenty times as long; the attackers use the same processors.
func TestPeersFloodFromEightAddresses(t *testing.T) {
	over(t, func(t *testing.T, config []string, _ string) {
		x, y := victims(t, config...)
		to, info := idOf(t, y), infoOf(t, y)
		var crowd []*attacker
		for i := range 8 {
			crowd = append(crowd, newAttacker(t, fmt.Sprintf("127.0.0.%d", i+1)))
		}
		length := time.Duration(testutil.Rounds(1500, 7000)) * time.Millisecond
		least := int64(testutil.Rounds(1000, 10_000)) // requests of a flood
		var slower []float64
		unharmed(t, x, y, func(look func()) {
			refusedBefore := status(t, y).Node.RefusedOpens
			var baseline, loaded []time.Duration
			calm := func() {
				for range 200 {
					baseline = append(baseline, echo(t, x))
				}
			}
			calm()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var flood sync.WaitGroup
			var asked atomic.Int64
			for _, a := range crowd {
				flood.Go(func() { a.flood(ctx, info, to, &asked) })
			}
			for begin := time.Now(); time.Since(begin) < length || asked.Load() < least; {
				if time.Since(begin) > length+time.Minute {
					t.Errorf("there was no flood: %d requests, want %d", asked.Load(), least)
					break
				}
				loaded = append(loaded, echo(t, x))
				if len(loaded)%64 == 0 {
					look()
				}
			}
			cancel()
			flood.Wait()
			for _, a := range crowd {
				a.leave(y)
			}
			calm()
			slower = append(slower, float64(percentile(loaded, .99))/float64(percentile(baseline, .99)))
			refused := status(t, y).Node.RefusedOpens - refusedBefore
			t.Logf("%d answered requests from 8 addresses, %d counted as refused; a contact's calls: p50 %v, under attack %v; p99 %v, under attack %v",
				asked.Load(), refused, percentile(baseline, .5), percentile(loaded, .5), percentile(baseline, .99), percentile(loaded, .99))
			if refused < uint64(asked.Load()) {
				t.Errorf("of %d requests %d are counted as refused", asked.Load(), refused)
			}
		})
		slices.Sort(slower)
		if ratio := slower[len(slower)/2]; testutil.Torture() && ratio > 20 {
			t.Errorf("under attack the p99 of a contact's calls is %.1f times as long", ratio)
		}
	})
}

// flood asks without pause: requests with one identity on one stream, then on
// another connection with another, among them raw streams.
func (a *attacker) flood(ctx context.Context, to peer.AddrInfo, owner identity.ID, asked *atomic.Int64) {
	f := a.open(wire.Kind_KIND_CALL, owner, api.ProtocolEcho)
	stream := bytesOf(a.t, a.open(wire.Kind_KIND_STREAM, owner, api.ProtocolEcho), nil)
	for ctx.Err() == nil {
		if a.host.Connect(ctx, to) != nil {
			continue
		}
		if s, err := a.tryStream(ctx, to.ID); err == nil {
			stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
			for range 500 {
				if _, _, err := s.tryAsk(f, []byte(`{"message":"x"}`)); err != nil {
					break
				}
				asked.Add(1)
			}
			stop()
			s.close()
		}
		for range 50 {
			if s, err := a.host.Network().NewStream(network.WithNoDial(ctx, "flood"), to.ID); err == nil {
				_, _ = s.Write(stream)
				_ = s.Reset()
			}
		}
		_ = a.host.Network().ClosePeer(to.ID)
	}
}
