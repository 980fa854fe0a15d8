package messages

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// clock is the time that a Store under test sees.
type clock struct {
	mu  sync.Mutex
	now time.Time
	up  time.Duration
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) uptime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up
}

// jump sets the clock; no time passes.
func (c *clock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.up = c.now.Add(d), c.up+d
}

// id makes an id out of a letter; that of an upper-case one is another user's.
func id(name string) identity.ID {
	var id identity.ID
	copy(id[:], name)
	return id
}

const day = 24 * time.Hour

func bigLimits() Limits {
	return Limits{PerUIDQueuedMessages: 1 << 30, PerUIDQueuedBytes: 1 << 40, PerPeerUnreadMessages: 1 << 30, PerUIDStoredMessages: 1 << 30, PerPeerStoredMessages: 1 << 30,
		PerPeerUnreadBytes: 1 << 40, NodeMessageBytes: 1 << 40, KeepRead: 365 * day}
}

// bench is a Store with what it was made of.
type box struct {
	*Store
	t      testing.TB
	dir    string
	clock  *clock
	limits Limits
	aside  []Aside
}

// newBox is a Store in memory: what these tests do, they do as often as a disk
// can sync in many seconds.
func newBox(t testing.TB) *box { return newBoxAt(t, memory(t)) }

// memory is a folder without a disk, where there is such a thing.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "fastn-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newBoxAt(t testing.TB, dir string) *box {
	b := &box{t: t, dir: dir, clock: newClock(), limits: bigLimits()}
	b.open()
	t.Cleanup(func() { b.must(b.Close()) })
	return b
}

func (b *box) open() {
	b.t.Helper()
	s, err := Open(b.t.Context(), b.dir, Options{
		Now:    b.clock.Now,
		Uptime: b.clock.uptime,
		Limits: func() Limits { return b.limits },
		Owner: func(id identity.ID) (uint32, bool) { // alice has two identities, no one owns what is called "x…"
			return map[byte]uint32{'a': 1, 'A': 1, 'b': 2, 'c': 3}[id[0]], id[0] != 'x'
		},
		UserName: func(uid uint32) string { return fmt.Sprintf("user%d", uid) },
		OnAside:  func(a Aside) { b.aside = append(b.aside, a) },
	})
	b.must(err)
	b.Store = s
}

func (b *box) reopen() {
	b.t.Helper()
	b.must(b.Close())
	b.open()
}

func (b *box) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

var lane = Lane{From: id("a"), To: id("b"), Protocol: "Text", Instance: "default"}

func text(s string) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"text":%q}`, s)) }

func (l Lane) message(id, s string) Message {
	return Message{ID: id, From: l.From, To: l.To, Protocol: l.Protocol, Instance: l.Instance, Data: text(s)}
}

func (b *box) put(l Lane, ids ...string) []Message {
	b.t.Helper()
	var list []Message
	for _, id := range ids {
		o, err := b.Put(b.t.Context(), l.message(id, "text of "+id))
		b.must(err)
		list = append(list, o.Message)
	}
	return list
}

func (b *box) head(l Lane) []Message {
	b.t.Helper()
	ms, _, err := b.Head(b.t.Context(), l, 256, 1<<20)
	b.must(err)
	return ms
}

func (b *box) take(ms ...Message) []Taken {
	b.t.Helper()
	for i := range ms {
		if ms[i].Created.IsZero() {
			ms[i].Created = b.clock.Now()
		}
	}
	return b.Take(b.t.Context(), ms)
}

func (b *box) inbox(owner identity.ID) []Incoming {
	b.t.Helper()
	ms, err := b.ListIn(b.t.Context(), owner, Page{}, false)
	b.must(err)
	return ms
}

func (b *box) state(from identity.ID, id string) Outgoing {
	b.t.Helper()
	o, err := b.Outgoing(b.t.Context(), from, id)
	b.must(err)
	return o
}

// checkUsage compares the counters with what lies there.
func (b *box) checkUsage() {
	b.t.Helper()
	var before, after map[useKey]use
	before = b.use.snapshot()
	b.audit.Store(true)
	b.must(b.auditIfNeeded(b.t.Context()))
	after = b.use.snapshot()
	for k := range after {
		if before[k] != after[k] {
			b.t.Errorf("counted %+v as %+v, it is %+v", k, before[k], after[k])
		}
	}
	for k := range before {
		if after[k] != before[k] {
			b.t.Errorf("counted %+v as %+v, it is %+v", k, before[k], after[k])
		}
	}
	uids, unread, stored := map[uint32]use{}, map[identity.ID]int64{}, map[uint32]int64{}
	for k, v := range after {
		switch uid, _ := b.o.Owner(k.owner); k.kind {
		case queuedBy:
			uids[uid] = uids[uid].plus(v)
		case unreadOf:
			unread[k.owner] += v.messages
		case storedOf:
			stored[uid] += v.messages
		}
	}
	for uid := range b.use.uids {
		if got := b.use.queued(uid); got != uids[uid] {
			b.t.Errorf("counted %+v of uid %d, it is %+v", got, uid, uids[uid])
		}
		if got := b.use.storedBy(uid); got != stored[uid] {
			b.t.Errorf("counted %d rows of uid %d, it is %d", got, uid, stored[uid])
		}
	}
	if got := b.use.unread; !maps.Equal(got, unread) {
		b.t.Errorf("counted as unread %v, it is %v", got, unread)
	}
}

func wantCode(t testing.TB, err error, code api.Code) {
	t.Helper()
	if api.CodeOf(err) != code {
		t.Errorf("got %q (%v), want %q", api.CodeOf(err), err, code)
	}
}

func ids(ms []Message) (list []string) {
	for _, m := range ms {
		list = append(list, m.ID)
	}
	return list
}

// realID is an id that can be parsed.
func realID(t testing.TB) identity.ID {
	t.Helper()
	k, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k.ID()
}

// oneUser owns every identity.
func oneUser(identity.ID) (uint32, bool) { return 1, true }
