package remote

import (
	"slices"
	"sync"

	"github.com/fastn-stack/fastnd/internal/identity"
)

const (
	recentIdentities = 1024
	recentNodes      = 4 // of one identity
)

// recent holds, for each identity of this node, the newest delegation of each
// identity and node that it heard of lately, so that a caller who is no contact
// can be called back, by who was called. It is bounded: the identity first heard
// of is forgotten first, of its nodes the one issued first.
type recent struct {
	mu    sync.Mutex
	of    map[heard][]*identity.Delegation // newest first
	order []heard
}

// heard is who heard of whom.
type heard struct{ owner, id identity.ID }

func newRecent() *recent {
	return &recent{of: make(map[heard][]*identity.Delegation)}
}

// put remembers d, which was verified, for owner and tells whether it is news.
func (r *recent) put(owner identity.ID, d *identity.Delegation) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := heard{owner, d.Identity}
	have, known := r.of[key]
	i := slices.IndexFunc(have, func(old *identity.Delegation) bool { return old.Node == d.Node })
	if i >= 0 {
		if !have[i].Issued.Before(d.Issued) {
			return false
		}
		have = slices.Delete(have, i, i+1)
	}
	if !known {
		if len(r.order) >= recentIdentities {
			delete(r.of, r.order[0])
			r.order = r.order[1:]
		}
		r.order = append(r.order, key)
	}
	at, _ := slices.BinarySearchFunc(have, d, func(a, b *identity.Delegation) int { return b.Issued.Compare(a.Issued) })
	have = slices.Insert(have, at, d)
	r.of[key] = have[:min(len(have), recentNodes)]
	return true
}

// get returns what owner heard of id, newest first.
func (r *recent) get(owner, id identity.ID) []*identity.Delegation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.of[heard{owner, id}])
}
