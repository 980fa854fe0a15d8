package remote

import (
	"slices"
	"sync"

	"github.com/fastn-stack/fastnd/internal/identity"
)

const (
	recentIdentities = 1024
	recentOfOwner    = 64 // of them one owner's: who floods it floods no other
	recentNodes      = 4  // of one identity
)

// recent holds, for each identity of this node, the newest delegation of each
// identity and node that it heard of lately, so that a caller who is no contact
// can be called back, by who was called. It is bounded, for each owner and in
// all: the identity first heard of is forgotten first, of its nodes the one
// issued first.
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
		r.makeRoom(owner)
		r.order = append(r.order, key)
	}
	at, _ := slices.BinarySearchFunc(have, d, func(a, b *identity.Delegation) int { return b.Issued.Compare(a.Issued) })
	have = slices.Insert(have, at, d)
	r.of[key] = have[:min(len(have), recentNodes)]
	return true
}

// makeRoom forgets one of owner's if it has its share, else one of anybody's if
// all is taken.
func (r *recent) makeRoom(owner identity.ID) {
	oldest, has := 0, 0
	for i, h := range slices.Backward(r.order) {
		if h.owner == owner {
			oldest, has = i, has+1
		}
	}
	if has < recentOfOwner {
		if len(r.order) < recentIdentities {
			return
		}
		oldest = 0
	}
	delete(r.of, r.order[oldest])
	r.order = slices.Delete(r.order, oldest, oldest+1)
}

// get returns what owner heard of id, newest first.
func (r *recent) get(owner, id identity.ID) []*identity.Delegation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.of[heard{owner, id}])
}
