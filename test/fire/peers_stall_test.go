package fire

import (
	"io"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

const (
	stalledEach = 50       // readers of each of two identities
	beside      = 16 << 20 // bytes that the working stream carries in a round
)

// A hundred readers that stopped reading, of two identities at two nodes, both
// contacts, and fifty of them on the very connection of the working stream: its
// bytes and round trips go on as they did without them, measured in turn.
func TestPeersStalledReadersSlowNobody(t *testing.T) {
	over(t, func(t *testing.T, config []string, listen string) {
		x, y := pair(t, process.Options{Config: config, Stderr: quiet{}}) // that collect garbage as usual
		friend := newAttacker(t, listen)
		friend.befriend(y, "friend")
		to := idOf(t, y)
		id := friend.connect(y)
		second := secondIdentity(t, x, y)
		var bulk, trips []float64
		var longest time.Duration
		for range testutil.Rounds(1, 9) {
			before := workBeside(t, x)
			stop := stall(t, second, stalledEach)
			taken := fill(t, friend, id, to, stalledEach, 64<<10)
			loaded := workBeside(t, x)
			stop()
			friend.leave(y)
			id = friend.connect(y)
			bulk = append(bulk, loaded.bulk.Seconds()/before.bulk.Seconds())
			trips = append(trips, float64(loaded.p99)/float64(before.p99))
			longest = max(longest, loaded.bulk, loaded.p99)
			t.Logf("beside 100 stalled readers (%d MiB of one node): %d MiB in %v, without %v (%.2f times); p99 of a round trip %v, without %v (%.2f times)",
				taken>>20, beside>>20, loaded.bulk, before.bulk, bulk[len(bulk)-1], loaded.p99, before.p99, trips[len(trips)-1])
		}
		most := 20.0
		switch {
		case testutil.Torture():
			most = 2
		case longest < time.Second: // a short form fails only if somebody starves
			most = math.Inf(1)
		}
		for what, list := range map[string][]float64{"bytes": bulk, "p99 of round trips": trips} {
			slices.Sort(list)
			t.Logf("%s: median %.2f times the baseline", what, list[len(list)/2])
			if list[len(list)/2] > most {
				t.Errorf("%s take %.2f times as long beside stalled readers", what, list[len(list)/2])
			}
		}
	})
}

// What stalled readers made a daemon hold is given back when they are gone, though the
// connection of some of them stays.
func TestPeersStalledReadersLeaveNothing(t *testing.T) {
	over(t, func(t *testing.T, config []string, listen string) {
		if listen == tcpLoopback && !testutil.Torture() {
			t.Skip("in the long form")
		}
		x, y := victims(t, config...)
		friend := newAttacker(t, listen)
		friend.befriend(y, "friend")
		to, second := idOf(t, y), secondIdentity(t, x, y)
		each := testutil.Rounds(16, stalledEach)
		unharmed(t, x, y, func(look func()) {
			stop := stall(t, second, each)
			fill(t, friend, friend.connect(y), to, each, 64<<10)
			look()
			stop()
			friend.leave(y)
		})
	})
}

// secondIdentity gives a client of x's that speaks for another identity, which is
// a contact of y's as well.
func secondIdentity(t *testing.T, x, y *process.Daemon) *client.Client {
	t.Helper()
	var own api.Identity
	if err := x.Client.Verb(t.Context(), api.VerbIdentityNew, api.NameArgs{Name: "second"}, &own); err != nil {
		t.Fatal(err)
	}
	var inv api.Invitation
	if err := y.Client.Verb(t.Context(), api.VerbContactInvite, api.InviteArgs{For: "second"}, &inv); err != nil {
		t.Fatal(err)
	}
	c := client.New(x.Socket, client.Options{Name: "stalled", From: "second"})
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Verb(t.Context(), api.VerbContactAdd, api.ContactAddArgs{Name: "peer", Ticket: inv.Ticket}, nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// stall opens streams to the peer's Echo and writes until nothing is taken any
// more, and reads nothing.
func stall(t *testing.T, c *client.Client, n int) (stop func()) {
	t.Helper()
	var streams []*client.Stream
	var writing sync.WaitGroup
	full := make(chan struct{}, n)
	for range n {
		s, err := c.Stream(t.Context(), client.Request{Target: "peer", Protocol: api.ProtocolEcho})
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
		progress := make(chan struct{}, 1)
		writing.Go(func() {
			for buf := make([]byte, 64<<10); ; {
				if _, err := s.Write(buf); err != nil {
					return
				}
				select {
				case progress <- struct{}{}:
				default:
				}
			}
		})
		go func() {
			for {
				select {
				case <-progress:
				case <-time.After(500 * time.Millisecond): // it stands still
					full <- struct{}{}
					return
				}
			}
		}()
	}
	for range n {
		<-full
	}
	return func() {
		for _, s := range streams {
			_ = s.Close()
		}
		writing.Wait()
	}
}

// worked is how long the work beside stalled readers took.
type worked struct {
	bulk time.Duration // of bytes there and back
	p99  time.Duration // of a round trip of a few bytes
}

// workBeside is a stream of d's to its peer's Echo: round trips, then bytes.
func workBeside(t *testing.T, d *process.Daemon) (w worked) {
	t.Helper()
	s := openStream(t, d, api.ProtocolEcho)
	defer s.Close()
	var trips []time.Duration
	small := make([]byte, 64)
	// So many that one collection of garbage is not a hundredth of them.
	for range testutil.Rounds(1000, 10000) {
		begin := time.Now()
		if _, err := s.Write(small); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, small); err != nil {
			t.Fatal(err)
		}
		trips = append(trips, time.Since(begin))
	}
	w.p99 = percentile(trips, .99)
	begin := time.Now()
	sent := make(chan error, 1)
	go func() {
		buf := make([]byte, 64<<10)
		for range beside / len(buf) {
			if _, err := s.Write(buf); err != nil {
				sent <- err
				return
			}
		}
		sent <- s.CloseWrite()
	}()
	n, err := io.Copy(io.Discard, s)
	if err != nil || n != beside {
		t.Fatalf("%d bytes came back: %v", n, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	w.bulk = time.Since(begin)
	return w
}
