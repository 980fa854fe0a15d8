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
	"github.com/fastn-stack/fastnd/test/process"
)

// Strangers at eight addresses, each with a node and an identity of its own that
// asks without pause, over streams and connections that come and go, then one whom
// everybody has blocked: a contact is served all the while, and what is refused is
// counted. In the long form its calls take at most twenty times as long; the
// attackers use the same processors.
func TestPeersFloodFromEightAddresses(t *testing.T) {
	over(t, func(t *testing.T, config []string, _ string) {
		x, y := victims(t, config...)
		var crowd []*attacker
		for i := range 8 {
			crowd = append(crowd, newAttacker(t, fmt.Sprintf("127.0.0.%d", i+1)))
		}
		blocked := newAttacker(t, "127.0.0.9")
		blocked.befriend(y, "blocked")
		block(t, y, "blocked")
		blocked.leave(y)
		length := time.Duration(testutil.Rounds(1500, 7000)) * time.Millisecond
		strangers := flood{x: x, y: y, crowd: crowd, length: length, least: int64(testutil.Rounds(1000, 10_000))}
		foe := flood{x: x, y: y, crowd: []*attacker{blocked}, length: length / 3, least: int64(testutil.Rounds(200, 2000))}
		unharmed(t, x, y, func(look func()) {
			strangers.run(t, look)
			foe.run(t, look)
		})
		strangers.check(t)
		foe.check(t)
	})
}

// flood is attackers that ask y, of which x is a contact, for a time, and until they
// were answered so often.
type flood struct {
	x, y   *process.Daemon
	crowd  []*attacker
	length time.Duration
	least  int64

	slower []float64 // how many times as long x's calls took, at the 99th percentile
}

// run makes one flood. Each request that was answered must be counted as refused.
func (f *flood) run(t *testing.T, look func()) {
	t.Helper()
	to, info := idOf(t, f.y), infoOf(t, f.y)
	refusedBefore := status(t, f.y).Node.RefusedOpens
	var baseline, loaded []time.Duration
	calm := func() {
		for range 200 {
			baseline = append(baseline, echo(t, f.x))
		}
	}
	calm()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var attack sync.WaitGroup
	var asked atomic.Int64
	for _, a := range f.crowd {
		attack.Go(func() { a.flood(ctx, info, to, &asked) })
	}
	for begin := time.Now(); time.Since(begin) < f.length || asked.Load() < f.least; {
		if time.Since(begin) > f.length+time.Minute {
			t.Errorf("there was no flood: %d requests, want %d", asked.Load(), f.least)
			break
		}
		loaded = append(loaded, echo(t, f.x))
		if len(loaded)%64 == 0 {
			look()
		}
	}
	cancel()
	attack.Wait()
	for _, a := range f.crowd {
		a.leave(f.y)
	}
	calm()
	f.slower = append(f.slower, float64(percentile(loaded, .99))/float64(percentile(baseline, .99)))
	refused := status(t, f.y).Node.RefusedOpens - refusedBefore
	t.Logf("%d answered requests of %d attackers, %d counted as refused; a contact's calls: p50 %v, under attack %v; p99 %v, under attack %v",
		asked.Load(), len(f.crowd), refused, percentile(baseline, .5), percentile(loaded, .5), percentile(baseline, .99), percentile(loaded, .99))
	if refused < uint64(asked.Load()) {
		t.Errorf("of %d requests %d are counted as refused", asked.Load(), refused)
	}
}

// check is for after the last run.
func (f *flood) check(t *testing.T) {
	t.Helper()
	slices.Sort(f.slower)
	if ratio := f.slower[len(f.slower)/2]; testutil.Torture() && ratio > 20 {
		t.Errorf("under attack the p99 of a contact's calls is %.1f times as long", ratio)
	}
}

// flood asks without pause, always as the same node and identity: requests on one
// stream, then raw streams, then on another connection.
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

// block has a daemon's user block a contact.
func block(t testing.TB, d *process.Daemon, name string) {
	t.Helper()
	if err := d.Client.Verb(t.Context(), api.VerbContactBlock, api.NameArgs{Name: name}, nil); err != nil {
		t.Fatal(full(err))
	}
}
