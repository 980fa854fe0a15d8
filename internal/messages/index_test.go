package messages

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/testutil"
)

// inIndex changes the last bit of n where it stands first in a leaf of an index.
func inIndex(t testing.TB, n int64) func(raw []byte) []byte {
	return func(raw []byte) []byte {
		want := binary.BigEndian.AppendUint64(nil, uint64(n))
		for at := 0; at < len(raw); at += 4096 {
			if i := bytes.Index(raw[at:at+4096], want); raw[at] == 0x0a && i >= 0 {
				raw[at+i+7] ^= 1
				return raw
			}
		}
		t.Fatal("no index has it")
		return nil
	}
}

// spoil changes the file below the store, which reads it again.
func (b *box) spoil(change func(raw []byte) []byte) {
	b.t.Helper()
	b.reopen() // the log is empty then
	raw, err := os.ReadFile(b.path())
	b.must(err)
	b.must(os.WriteFile(b.path(), change(raw), 0o600))
	b.forgetPages()
}

// One bit of the index by which the courier finds its mail: it is noticed, mended
// and told, and all mail goes on.
func TestDamagedIndexOfLanes(t *testing.T) {
	for what, n := range map[string]int64{"who": short(lane.From), "lane": lane.hash()} {
		t.Run(what, func(t *testing.T) {
			testutil.LeakCheck(t)
			b := newBox(t)
			other := Lane{id("b"), id("c"), "Text", "default"}
			b.put(lane, "1")
			b.put(other, "1")
			b.spoil(inIndex(t, n))
			var told []*sqlite.Recovery
			b.o.OnRecovery = func(r *sqlite.Recovery) { told = append(told, r) }
			c := NewCourier(CourierOptions{Store: b.Store, Tell: func(Notice) {}, Now: b.clock.Now,
				Near:    func(_, _ identity.ID) bool { return true },
				Takes:   func(_, _ identity.ID, _, _ string) bool { return true },
				Deliver: func(_ context.Context, m *router.Mail) ([]error, error) { return taken(m) }})
			defer runCourier(t, c)()
			for _, l := range []Lane{lane, other} {
				if o, err := c.WaitFinal(t.Context(), l.From, "1"); err != nil || o.State != Delivered {
					t.Errorf("%s's message is %v, %v", string(l.From[:1]), o.State, err)
				}
			}
			if len(told) != 1 || told[0].Lost() || c.Trouble() != nil {
				t.Errorf("told %d times, %v", len(told), c.Trouble())
				for _, r := range told {
					t.Errorf("%+v", *r)
				}
			}
		})
	}
}

// runCourier runs c until stop.
func runCourier(t *testing.T, c *Courier) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// What waits cannot be read for a while, at the start: the courier says so, and goes
// on by itself; also where messages that are counted are in no lane.
func TestLanesAreReadOnceTheyCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := memory(t)
		r := newRigAt(t, dir)
		r.is(refusedAll("offline"))
		r.send(lane, "1")
		r.stop()

		next := newRigStopped(t, dir)
		next.s.mu.Lock()
		db, batch := next.s.db, next.s.batch
		next.s.db, next.s.batch, next.s.broken = nil, nil, errClosed
		next.s.mu.Unlock()
		next.run()
		synctest.Wait()
		if next.Trouble() == nil {
			t.Error("no trouble")
		}
		next.s.mu.Lock()
		next.s.db, next.s.batch, next.s.broken = db, batch, nil
		next.s.mu.Unlock()
		time.Sleep(time.Minute)
		next.wantStates("1 delivered")
		if next.Trouble() != nil {
			t.Error(next.Trouble())
		}
	})
}

// One bit of the index that knows what was taken: it is mended before a start takes
// anything.
func TestDamagedIndexOfWhatWasTaken(t *testing.T) {
	testutil.LeakCheck(t)
	b := newBox(t)
	b.take(lane.message("1", "x"), lane.message("2", "x"))
	b.damage(inIndex(t, hash(lane.To, "1")))
	if r := b.Recovery(); r == nil || r.Lost() {
		t.Errorf("recovery: %+v", r)
	}
	if got := b.take(lane.message("1", "x")); got[0].Err != nil || got[0].Fresh { // the answer was lost
		t.Errorf("%+v", got)
	}
	if in := b.inbox(lane.To); len(in) != 2 {
		t.Errorf("%d messages are there", len(in))
	}
}
