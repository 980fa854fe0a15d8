package access

import (
	"net/netip"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/lru"
)

// remembered bounds how many identities, nodes and addresses are watched; of
// more, those that were refused longest ago are forgotten.
const remembered = 4096

// strangers watches those whose opens were refused.
type strangers struct {
	now        func() time.Time
	mu         sync.Mutex
	identities buckets[identity.ID]
	nodes      buckets[identity.ID]
	networks   buckets[netip.Prefix]
}

func newStrangers() strangers {
	return strangers{now: time.Now, identities: newBuckets[identity.ID](), nodes: newBuckets[identity.ID](),
		networks: newBuckets[netip.Prefix]()}
}

// Refused counts an open that was refused because its sender is a stranger. It
// tells whether the sender's identity, node or address is over its rate with
// this one. Contacts are not to be counted, nor to suffer from it. network is
// what counts as one address; a zero one is not limited.
func (b *Budgets) Refused(from, node identity.ID, network netip.Prefix) (over bool) {
	l, s := b.limits.Load(), &b.strangers
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes.get(node, now, l.PerNodeRefusedOpens)
	n.refusals++
	// Each is counted, whatever the others say.
	byNode := n.take(now, l.PerNodeRefusedOpens)
	byID := s.identities.get(from, now, l.PerPeerRefusedOpens).take(now, l.PerPeerRefusedOpens)
	byNet := !network.IsValid() || s.networks.get(network, now, l.PerAddressRefusedOpens).take(now, l.PerAddressRefusedOpens)
	return !byNode || !byID || !byNet
}

// Throttled tells whether opens of this stranger are over their rate, so that
// the constant refusal can be given without any work. It counts nothing. from
// and network may be zero where the identity is not proven yet.
func (b *Budgets) Throttled(from, node identity.ID, network netip.Prefix) bool {
	l, s := b.limits.Load(), &b.strangers
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes.empty(node, now, l.PerNodeRefusedOpens) ||
		s.identities.empty(from, now, l.PerPeerRefusedOpens) ||
		network.IsValid() && s.networks.empty(network, now, l.PerAddressRefusedOpens)
}

// RefusedOpens tells how many opens of strangers at node were refused, since the
// start or since the node was forgotten.
func (b *Budgets) RefusedOpens(node identity.ID) uint64 {
	s := &b.strangers
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.nodes.Peek(node); ok {
		return b.refusals
	}
	return 0
}

// bucket is a token bucket that holds the tokens of one second.
type bucket struct {
	tokens   float64
	at       time.Time // when tokens was right
	refusals uint64
}

func (b *bucket) fill(now time.Time, rate int) {
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens = min(b.tokens+passed.Seconds()*float64(rate), float64(rate))
		b.at = now
	}
}

func (b *bucket) take(now time.Time, rate int) bool {
	b.fill(now, rate)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

type buckets[K comparable] struct{ *lru.Map[K, *bucket] }

func newBuckets[K comparable]() buckets[K] { return buckets[K]{lru.New[K, *bucket](remembered)} }

// get gives key's bucket; a new one is full.
func (s buckets[K]) get(key K, now time.Time, rate int) *bucket {
	b, ok := s.Get(key)
	if !ok {
		b = &bucket{tokens: float64(rate), at: now}
		s.Put(key, b)
	}
	return b
}

func (s buckets[K]) empty(key K, now time.Time, rate int) bool {
	b, ok := s.Peek(key)
	if !ok {
		return false
	}
	b.fill(now, rate)
	return b.tokens < 1
}
