package access

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// What is what a budget counts.
type What uint8

// What can be acquired. A remote identity has no Connections and Bytes of its own.
const (
	Connections What = iota
	Requests
	Streams
	Bytes // buffered: of requests in flight, unfinished lines and unread answers
	kinds = iota
)

func (w What) String() string {
	switch w {
	case Connections:
		return "connections"
	case Requests:
		return "requests in flight"
	case Streams:
		return "streams"
	case Bytes:
		return "buffered bytes"
	}
	return "nothing known"
}

// setting is the budget's key for local users in fastn.toml.
func (w What) setting() string {
	switch w {
	case Connections:
		return "budgets.per_uid_connections"
	case Requests:
		return "budgets.per_uid_requests"
	case Streams:
		return "budgets.per_uid_streams"
	case Bytes:
		return "budgets.per_uid_buffered_bytes"
	}
	return ""
}

// nodeSetting is the key of what all local users may have together, "" if that is
// without bound.
func (w What) nodeSetting() string {
	switch w {
	case Connections:
		return "budgets.node_connections"
	case Bytes:
		return "budgets.node_buffered_bytes"
	}
	return ""
}

// Limits are the budgets of fastn.toml, all above 0.
type Limits struct {
	PerUIDConnections int
	PerUIDRequests    int
	PerUIDStreams     int
	PerUIDBytes       int
	NodeConnections   int // of all local users together, as is the next
	NodeBytes         int

	PerPeerRequests int
	PerPeerStreams  int

	// Refused opens per second of strangers; as many may come at once.
	PerPeerRefusedOpens    int
	PerNodeRefusedOpens    int
	PerAddressRefusedOpens int
}

func (l *Limits) perUID() [kinds]int {
	return [kinds]int{l.PerUIDConnections, l.PerUIDRequests, l.PerUIDStreams, l.PerUIDBytes}
}

// node is of all local users together; 0 is without bound.
func (l *Limits) node() [kinds]int {
	return [kinds]int{Connections: l.NodeConnections, Bytes: l.NodeBytes}
}

func (l *Limits) perPeer() [kinds]int {
	return [kinds]int{0, l.PerPeerRequests, l.PerPeerStreams, 0}
}

// Budgets counts what is in use. Safe for concurrent use.
type Budgets struct {
	limits    atomic.Pointer[Limits]
	users     counters[uint32]
	peers     counters[identity.ID]
	strangers strangers
	userName  func(uid uint32) string
}

// NewBudgets makes Budgets. userName names a uid in refusals; nil for "uid N".
func NewBudgets(l Limits, userName func(uid uint32) string) *Budgets {
	if userName == nil {
		userName = func(uid uint32) string { return fmt.Sprintf("uid %d", uid) }
	}
	b := &Budgets{userName: userName, strangers: newStrangers()}
	b.SetLimits(l)
	return b
}

// SetLimits puts other limits in force. What is in use already stays.
func (b *Budgets) SetLimits(l Limits) { b.limits.Store(&l) }

// AcquireUID takes one of what from the uid's budget. release gives it back, and
// may be called again; it is nil with an error, which is of CodeOverBudget and
// names the budget, whose it is and its setting: for local users only.
func (b *Budgets) AcquireUID(uid uint32, what What) (release func(), refusal *api.Error) {
	l := b.limits.Load()
	release, full := b.users.acquire(uid, what, l.perUID()[what], l.node()[what])
	if full != nil {
		return nil, b.refusal(uid, what, full)
	}
	return release, nil
}

// TakeUID takes n of what from the uid's budget, all or none; GiveUID gives them
// back. The refusal is as that of AcquireUID.
func (b *Budgets) TakeUID(uid uint32, what What, n int) (refusal *api.Error) {
	l := b.limits.Load()
	if full := b.users.take(uid, what, n, l.perUID()[what], l.node()[what]); full != nil {
		return b.refusal(uid, what, full)
	}
	return nil
}

// GiveUID gives back n that TakeUID took.
func (b *Budgets) GiveUID(uid uint32, what What, n int) { b.users.give(uid, what, n) }

func (b *Budgets) refusal(uid uint32, what What, f *full) *api.Error {
	has, setting := b.userName(uid)+" has", what.setting()
	if f.all {
		has, setting = "all users of this machine have", what.nodeSetting()
	}
	return api.Errorf(api.CodeOverBudget, "over budget: %s %d of %d %s (%s)", has, f.used, f.limit, what, setting).
		WithHint(`wait until some have ended, or ask an administrator to raise %s in fastn.toml and to reload the daemon`, setting)
}

// AcquirePeer takes one of what, Requests or Streams, from the budget of a
// remote identity. The error goes to that identity: it names the budget, its
// limit and whose side it is, nothing of ours. It is for contacts; strangers
// get api.Refusal instead.
func (b *Budgets) AcquirePeer(id identity.ID, what What) (release func(), refusal *api.Error) {
	limit := b.limits.Load().perPeer()[what]
	release, full := b.peers.acquire(id, what, limit, 0)
	if full == nil {
		return release, nil
	}
	return nil, api.Errorf(api.CodeOverBudget, "over budget: %s (%d) on the peer's side", what, limit).
		WithHint("wait until some of yours have ended")
}

// Usage tells what the uid has in use, for its status.
func (b *Budgets) Usage(uid uint32) []api.BudgetUse {
	limits, used := b.limits.Load().perUID(), b.users.used(uid)
	list := make([]api.BudgetUse, kinds)
	for what := range What(kinds) {
		list[what] = api.BudgetUse{
			Budget: what.String(), Used: int64(used[what]), Limit: int64(limits[what]), Setting: what.setting(),
		}
	}
	return list
}

// counters counts per key. Keys with nothing in use are forgotten, since
// identities cost nothing to make.
type counters[K comparable] struct {
	mu     sync.Mutex
	byKey  map[K]*[kinds]int
	totals [kinds]int
}

// full is why nothing more is counted.
type full struct {
	all         bool // the limit is that of all keys together
	used, limit int
}

// room tells why n more of what do not fit limit, or total over all keys (without
// bound if that is 0), nil if they do. c.mu is held.
func (c *counters[K]) room(counts *[kinds]int, what What, n, limit, total int) *full {
	used := 0
	if counts != nil {
		used = counts[what]
	}
	switch all := c.totals[what]; {
	case n > limit-used:
		return &full{used: used, limit: limit}
	case total > 0 && n > total-all:
		return &full{all: true, used: all, limit: total}
	}
	return nil
}

// acquire counts one up, unless limit or total is reached.
func (c *counters[K]) acquire(key K, what What, limit, total int) (release func(), _ *full) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.byKey[key]
	if full := c.room(counts, what, 1, limit, total); full != nil {
		return nil, full
	}
	counts = c.add(key, counts, what, 1)
	l := &lease[K]{in: c, key: key, counts: counts, what: what}
	return l.release, nil
}

// add counts n up for key, whose counts are nil if there are none yet. c.mu is held.
func (c *counters[K]) add(key K, counts *[kinds]int, what What, n int) *[kinds]int {
	if counts == nil {
		if c.byKey == nil {
			c.byKey = make(map[K]*[kinds]int)
		}
		counts = new([kinds]int)
		c.byKey[key] = counts
	}
	counts[what] += n
	c.totals[what] += n
	return counts
}

// take counts n up, unless that is beyond limit or total.
func (c *counters[K]) take(key K, what What, n, limit, total int) *full {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.byKey[key]
	if full := c.room(counts, what, n, limit, total); full != nil {
		return full
	}
	c.add(key, counts, what, n)
	return nil
}

func (c *counters[K]) give(key K, what What, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if counts := c.byKey[key]; counts != nil {
		c.sub(key, counts, what, n)
	}
}

// sub counts n down. c.mu is held.
func (c *counters[K]) sub(key K, counts *[kinds]int, what What, n int) {
	counts[what] -= n
	c.totals[what] -= n
	if *counts == ([kinds]int{}) {
		delete(c.byKey, key)
	}
}

// lease is one that was acquired.
type lease[K comparable] struct {
	in       *counters[K]
	key      K
	counts   *[kinds]int // key's, which stay while any is in use
	what     What
	released atomic.Bool
}

func (l *lease[K]) release() {
	if l.released.Swap(true) {
		return
	}
	c := l.in
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sub(l.key, l.counts, l.what, 1)
}

func (c *counters[K]) used(key K) [kinds]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if counts := c.byKey[key]; counts != nil {
		return *counts
	}
	return [kinds]int{}
}
