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

// recent holds the newest delegation of each identity and node heard of lately,
// so that a caller who is no contact can be called back. It is bounded: the
// identity first heard of is forgotten first, of its nodes the one issued first.
type recent struct {
	mu    sync.Mutex
	of    map[identity.ID][]*identity.Delegation // newest first
	order []identity.ID
}

func newRecent() *recent {
	return &recent{of: make(map[identity.ID][]*identity.Delegation)}
}

// put remembers d, which was verified, and tells whether it is news.
func (r *recent) put(d *identity.Delegation) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	have, known := r.of[d.Identity]
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
		r.order = append(r.order, d.Identity)
	}
	at, _ := slices.BinarySearchFunc(have, d, func(a, b *identity.Delegation) int { return b.Issued.Compare(a.Issued) })
	have = slices.Insert(have, at, d)
	r.of[d.Identity] = have[:min(len(have), recentNodes)]
	return true
}

// get returns what is remembered of id, newest first.
func (r *recent) get(id identity.ID) []*identity.Delegation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.of[id])
}
