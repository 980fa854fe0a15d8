package fire

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// What a contact's node can make a daemon hold by streams that nobody reads: the
// windows of those that one identity may have, times what the transport adds to
// each frame, and nothing once the node is gone.
func TestPeersWhatAHostileFriendMakesUsHold(t *testing.T) {
	over(t, func(t *testing.T, config []string, listen string) {
		if listen == tcpLoopback && !testutil.Torture() {
			t.Skip("in the long form")
		}
		x, y := victims(t, config...)
		to := idOf(t, y)
		for _, c := range []struct {
			chunk, streams, long int
			times                int64 // at most so many bytes are held for one
		}{{64 << 10, 16, 64, 2}, {130, 0, 16, 5}, {1, 0, 2, 30}} {
			streams := testutil.Rounds(c.streams, c.long)
			if streams == 0 {
				continue
			}
			t.Run(fmt.Sprintf("%d bytes at a time", c.chunk), func(t *testing.T) {
				friend := newAttacker(t, listen)
				friend.befriend(y, fmt.Sprintf("friend%d", c.chunk))
				unharmed(t, x, y, func(look func()) {
					before := measure(t, y)
					taken := fill(t, friend, friend.connect(y), to, streams, c.chunk)
					for range 20 {
						echo(t, x)
						look()
					}
					held := measure(t, y).HeapBytes - before.HeapBytes
					t.Logf("%d streams took %d KiB, for which %d KiB are held: %.1f times", streams, taken>>10, held>>10, float64(held)/float64(taken))
					if taken < int64(streams)<<19 {
						t.Errorf("%d streams took only %d bytes", streams, taken)
					}
					if held > taken*c.times+16<<20 {
						t.Errorf("%d bytes are held for %d", held, taken)
					}
					friend.leave(y)
				})
			})
		}
	})
}

// fill opens streams to Echo and writes to all of them, a chunk at a time, until
// none takes any more. Nothing is read. It gives how many bytes were taken.
func fill(t *testing.T, a *attacker, id peer.ID, owner identity.ID, n, chunk int) int64 {
	t.Helper()
	var all sync.WaitGroup
	var taken atomic.Int64
	streams := make([]*rawStream, n) // all opened first: the answers need a window too
	for i := range streams {
		s := a.stream(id)
		if reply, _ := s.ask(a.open(wire.Kind_KIND_STREAM, owner, api.ProtocolEcho), nil); reply.GetCode() != "" {
			t.Fatal(reply)
		}
		streams[i] = s
	}
	for _, s := range streams {
		all.Go(func() {
			for buf := make([]byte, chunk); ; {
				_ = s.SetWriteDeadline(time.Now().Add(time.Second))
				m, err := s.Write(buf)
				if taken.Add(int64(m)); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return taken.Load()
}
