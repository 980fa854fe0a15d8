package access

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

func limits() Limits {
	return Limits{
		PerUIDConnections: 3, PerUIDRequests: 4, PerUIDStreams: 2, PerUIDBytes: 100, NodeConnections: 5, NodeBytes: 200,
		PerPeerRequests: 2, PerPeerStreams: 1,
		PerPeerRefusedOpens: 10, PerNodeRefusedOpens: 20, PerAddressRefusedOpens: 50,
	}
}

func newBudgets() *Budgets {
	return NewBudgets(limits(), func(uid uint32) string { return fmt.Sprintf("user%d", uid) })
}

// take acquires n and fails t if one is refused.
func take(t *testing.T, b *Budgets, uid uint32, what What, n int) (release []func()) {
	t.Helper()
	for range n {
		r, refusal := b.AcquireUID(uid, what)
		if refusal != nil {
			t.Fatal(refusal)
		}
		release = append(release, r)
	}
	return release
}

func TestLocalRefusalNamesEverything(t *testing.T) {
	b := newBudgets()
	for what, want := range map[What]string{
		Connections: "over budget: user7 has 3 of 3 connections (budgets.per_uid_connections)",
		Requests:    "over budget: user7 has 4 of 4 requests in flight (budgets.per_uid_requests)",
		Streams:     "over budget: user7 has 2 of 2 streams (budgets.per_uid_streams)",
	} {
		held := take(t, b, 7, what, b.limits.Load().perUID()[what])
		release, refusal := b.AcquireUID(7, what)
		if release != nil || refusal == nil || refusal.Code != api.CodeOverBudget || refusal.Message != want {
			t.Errorf("got %v, want %q", refusal, want)
			continue
		}
		if !strings.Contains(refusal.Hint, what.setting()) || !strings.Contains(refusal.Hint, "reload the daemon") {
			t.Errorf("hint %q", refusal.Hint)
		}
		held[0]()
		take(t, b, 7, what, 1)
	}
	take(t, b, 8, Streams, 2) // others have their own
}

func TestNodeConnections(t *testing.T) {
	b := newBudgets()
	held := append(take(t, b, 1, Connections, 3), take(t, b, 2, Connections, 2)...)
	_, refusal := b.AcquireUID(2, Connections)
	want := "over budget: all users of this machine have 5 of 5 connections (budgets.node_connections)"
	if refusal == nil || refusal.Message != want || !strings.Contains(refusal.Hint, "budgets.node_connections") {
		t.Errorf("got %v, want %q", refusal, want)
	}
	take(t, b, 2, Requests, 4) // only connections are counted together
	held[0]()
	take(t, b, 2, Connections, 1)
}

// Bytes are taken many at a time, all or none.
func TestBytes(t *testing.T) {
	b := newBudgets()
	if refusal := b.TakeUID(7, Bytes, 60); refusal != nil {
		t.Fatal(refusal)
	}
	want := "over budget: user7 has 60 of 100 buffered bytes (budgets.per_uid_buffered_bytes)"
	refusal := b.TakeUID(7, Bytes, 41)
	if refusal == nil || refusal.Code != api.CodeOverBudget || refusal.Message != want || !strings.Contains(refusal.Hint, "budgets.per_uid_buffered_bytes") {
		t.Errorf("got %v, want %q", refusal, want)
	}
	held := take(t, b, 7, Requests, 1)
	for _, n := range []int{40, 0} {
		if refusal := b.TakeUID(7, Bytes, n); refusal != nil {
			t.Error(refusal)
		}
	}
	if refusal := b.TakeUID(8, Bytes, 100); refusal != nil {
		t.Error("another user is refused:", refusal)
	}
	// Together users have less than each of them may have.
	want = "over budget: all users of this machine have 200 of 200 buffered bytes (budgets.node_buffered_bytes)"
	refusal = b.TakeUID(9, Bytes, 1)
	if refusal == nil || refusal.Message != want || !strings.Contains(refusal.Hint, "raise budgets.node_buffered_bytes in") {
		t.Errorf("got %v, want %q", refusal, want)
	}
	b.GiveUID(8, Bytes, 1)
	if refusal := b.TakeUID(9, Bytes, 1); refusal != nil {
		t.Error(refusal)
	}
	b.GiveUID(9, Bytes, 1)
	b.GiveUID(7, Bytes, 60)
	b.GiveUID(7, Bytes, 40)
	b.GiveUID(8, Bytes, 99)
	held[0]()
	if n := len(b.users.byKey); n != 0 || b.users.totals != [kinds]int{} {
		t.Errorf("%d users are remembered, totals %v", n, b.users.totals)
	}
}

// A remote identity learns nothing of users and settings here.
func TestRemoteRefusal(t *testing.T) {
	b := newBudgets()
	for range 2 {
		if _, refusal := b.AcquirePeer(identity.ID{1}, Requests); refusal != nil {
			t.Fatal(refusal)
		}
	}
	_, refusal := b.AcquirePeer(identity.ID{1}, Requests)
	want := "over budget: requests in flight (2) on the peer's side"
	if refusal == nil || refusal.Code != api.CodeOverBudget || refusal.Message != want {
		t.Fatalf("got %v, want %q", refusal, want)
	}
	for _, secret := range []string{"uid", "budgets.", "toml", "admin"} {
		if strings.Contains(refusal.Message+refusal.Hint, secret) {
			t.Errorf("it tells %q: %v, %s", secret, refusal, refusal.Hint)
		}
	}
	if _, refusal := b.AcquirePeer(identity.ID{2}, Requests); refusal != nil {
		t.Error("another identity is refused:", refusal)
	}
	if _, refusal := b.AcquirePeer(identity.ID{1}, Streams); refusal != nil {
		t.Error("another budget is refused:", refusal)
	}
}

func TestReleaseTwiceCountsOnce(t *testing.T) {
	b := newBudgets()
	held := take(t, b, 1, Streams, 2)
	held[0]()
	held[0]()
	take(t, b, 1, Streams, 1)
	if _, refusal := b.AcquireUID(1, Streams); refusal == nil {
		t.Error("the second release gave back what somebody else holds")
	}
}

func TestSetLimitsKeepsWhatIsInUse(t *testing.T) {
	b := newBudgets()
	held := take(t, b, 1, Requests, 4)
	l := limits()
	l.PerUIDRequests = 2
	b.SetLimits(l)
	held[0]()
	held[1]()
	if _, refusal := b.AcquireUID(1, Requests); refusal == nil {
		t.Error("a lowered limit is not in force")
	}
	held[2]()
	take(t, b, 1, Requests, 1)
	l.PerUIDRequests = 9
	b.SetLimits(l)
	take(t, b, 1, Requests, 7)
}

func TestUsage(t *testing.T) {
	b := newBudgets()
	take(t, b, 1, Requests, 3)
	take(t, b, 1, Connections, 1)
	want := []api.BudgetUse{
		{Budget: "connections", Used: 1, Limit: 3, Setting: "budgets.per_uid_connections"},
		{Budget: "requests in flight", Used: 3, Limit: 4, Setting: "budgets.per_uid_requests"},
		{Budget: "streams", Used: 0, Limit: 2, Setting: "budgets.per_uid_streams"},
		{Budget: "buffered bytes", Used: 0, Limit: 100, Setting: "budgets.per_uid_buffered_bytes"},
	}
	got := b.Usage(1)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if idle := b.Usage(2); idle[0].Used+idle[1].Used+idle[2].Used != 0 {
		t.Errorf("another uid: %+v", idle)
	}
}

// Whatever happens at once, limits hold, and all counts return to zero.
func TestCountsReturnToZero(t *testing.T) {
	b := newBudgets()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 5))
			var held []func()
			for range 2000 {
				var release func()
				if uid := r.Uint32N(3); r.IntN(2) == 0 {
					release, _ = b.AcquireUID(uid, What(r.IntN(kinds)))
					for _, u := range b.Usage(uid) {
						if u.Used > u.Limit || u.Used < 0 {
							t.Errorf("%d of %d %s", u.Used, u.Limit, u.Budget)
						}
					}
				} else {
					release, _ = b.AcquirePeer(identity.ID{byte(r.IntN(5))}, Requests+What(r.IntN(2)))
				}
				if release != nil {
					held = append(held, release)
				}
				if len(held) > 0 && r.IntN(3) > 0 {
					n := r.IntN(len(held))
					held[n]() // stays in the list: some are released twice
					held[n]()
				}
			}
			for _, release := range held {
				release()
			}
		})
	}
	wg.Wait()
	if n := len(b.users.byKey) + len(b.peers.byKey); n != 0 {
		t.Errorf("%d keys are remembered with nothing in use", n)
	}
	if b.users.totals != [kinds]int{} || b.peers.totals != [kinds]int{} {
		t.Errorf("totals %v, %v", b.users.totals, b.peers.totals)
	}
}

func BenchmarkAcquireRelease(b *testing.B) {
	budgets := NewBudgets(limits(), nil)
	b.ReportAllocs()
	for b.Loop() {
		release, refusal := budgets.AcquireUID(1, Requests)
		if refusal != nil {
			b.Fatal(refusal)
		}
		release()
	}
}

func BenchmarkAcquireReleaseParallel(b *testing.B) {
	l := limits()
	l.PerUIDRequests = 1 << 20
	budgets := NewBudgets(l, nil)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			release, refusal := budgets.AcquireUID(1, Requests)
			if refusal != nil {
				b.Error(refusal)
				return
			}
			release()
		}
	})
}

// clocked gives budgets whose clock stands until it is moved.
func clocked() (b *Budgets, pass func(time.Duration)) {
	b = newBudgets()
	now := time.Unix(1_700_000_000, 0)
	b.strangers.now = func() time.Time { return now }
	return b, func(d time.Duration) { now = now.Add(d) }
}

var ip4 = netip.MustParsePrefix("2.0.0.1/32")

func TestRefusedPerIdentity(t *testing.T) {
	b, pass := clocked()
	from, node := identity.ID{1}, identity.ID{2}
	for n := range 10 {
		if b.Throttled(from, node, ip4) || b.Refused(from, node, ip4) {
			t.Fatalf("over its rate after %d", n)
		}
	}
	if !b.Throttled(from, node, ip4) || !b.Refused(from, node, ip4) {
		t.Error("the eleventh in a second is within the rate")
	}
	if b.Throttled(identity.ID{3}, node, ip4) {
		t.Error("another identity of the node suffers")
	}
	if b.Throttled(identity.ID{}, node, ip4) {
		t.Error("a node within its rate is throttled")
	}
	pass(100 * time.Millisecond) // one more at 10 a second
	if b.Refused(from, node, ip4) || !b.Refused(from, node, ip4) {
		t.Error("it is not one more after a tenth of a second")
	}
	pass(time.Hour)
	for range 10 {
		if b.Refused(from, node, ip4) {
			t.Error("it was not forgiven after an hour")
		}
	}
	if !b.Refused(from, node, ip4) {
		t.Error("more than a second's worth was saved up")
	}
}

// Fresh identities are of no use to a node, nor fresh nodes to an address.
func TestRefusedPerNodeAndAddress(t *testing.T) {
	b, _ := clocked()
	over := func(from, node int, ip netip.Prefix) bool {
		return b.Refused(identity.ID{1, byte(from), byte(from >> 8)}, identity.ID{2, byte(node)}, ip)
	}
	for n := range 20 {
		if over(n, 0, ip4) {
			t.Fatalf("the node is over its rate after %d", n)
		}
	}
	if !over(20, 0, ip4) || !b.Throttled(identity.ID{9}, identity.ID{2, 0}, netip.MustParsePrefix("2.0.0.2/32")) {
		t.Error("a node is not limited over all its identities and addresses")
	}
	for n := 21; n < 50; n++ {
		if over(n, n, ip4) {
			t.Fatalf("the address is over its rate after %d", n)
		}
	}
	if !over(50, 50, ip4) || !b.Throttled(identity.ID{9}, identity.ID{9}, netip.MustParsePrefix("2.0.0.1/32")) {
		t.Error("an address is not limited over all its nodes")
	}
	if b.Throttled(identity.ID{9}, identity.ID{9}, netip.MustParsePrefix("2.0.0.2/32")) {
		t.Error("the neighbour of an IPv4 address suffers")
	}
	if got := b.RefusedOpens(identity.ID{2, 0}); got != 21 {
		t.Errorf("the node's counter is %d, not 21", got)
	}
	if got := b.RefusedOpens(identity.ID{3}); got != 0 {
		t.Errorf("another node's counter is %d", got)
	}
}

// Those whose address is not known do not pay for one another.
func TestNoAddressIsNotLimited(t *testing.T) {
	b, _ := clocked()
	var none netip.Prefix
	for n := range 100 {
		if b.Refused(identity.ID{1, byte(n)}, identity.ID{2, byte(n)}, none) {
			t.Fatalf("over its rate after %d", n)
		}
	}
	if b.Throttled(identity.ID{}, identity.ID{9}, none) {
		t.Error("a node without an address suffers from others")
	}
}

// However many identities come, no more is remembered of them.
func TestStrangersAreBounded(t *testing.T) {
	b, pass := clocked()
	for n := range 3 * remembered {
		who := identity.ID{byte(n), byte(n >> 8)}
		ip := netip.PrefixFrom(netip.AddrFrom4([4]byte{2, byte(n >> 16), byte(n >> 8), byte(n)}), 32)
		b.Refused(who, who, ip)
		b.Throttled(identity.ID{byte(n), byte(n >> 8), 1}, who, ip)
		pass(time.Millisecond)
	}
	s := &b.strangers
	for name, n := range map[string]int{
		"identities": s.identities.Len(), "nodes": s.nodes.Len(), "networks": s.networks.Len(),
	} {
		if n != remembered {
			t.Errorf("%d %s are remembered", n, name)
		}
	}
}
