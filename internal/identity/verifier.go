package identity

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/lru"
)

const (
	signatureCache = 4096
	newestMemory   = 16384
)

// Newest is durable memory of the newest delegation seen, for contacts. It is
// asked when the Verifier does not remember the pair itself: at most once while
// it does. ok is false if nothing is known; an implementation that cannot
// answer should say so rather than block. Calls may be concurrent.
type Newest interface {
	NewestDelegation(identity, node ID) (issued, expires time.Time, ok bool)
}

// Verifier checks delegations. It caches only signature checks; time, node and
// newer delegations are looked at in every call. Safe for concurrent use.
type Verifier struct {
	newest Newest

	mu     sync.Mutex
	signed *lru.Map[[sha256.Size]byte, *Delegation]
	seen   *lru.Map[pair, span]
}

type pair struct{ identity, node ID }

type span struct{ issued, expires time.Time }

// NewVerifier makes a Verifier; newest may be nil.
func NewVerifier(newest Newest) *Verifier {
	return &Verifier{
		newest: newest,
		signed: lru.New[[sha256.Size]byte, *Delegation](signatureCache),
		seen:   lru.New[pair, span](newestMemory),
	}
}

// Verify accepts raw if its identity lets node speak for it now. node is the
// proven other end of the connection. Errors, in the order they are looked for:
// ErrMalformed, ErrKeyType, ErrPayloadType, ErrSigner, *TimeError (ErrFuture,
// ErrExpired), ErrWrongNode and, the only one that needs a look-up, ErrSuperseded.
// What is refused is not remembered.
func (v *Verifier) Verify(raw []byte, node ID, now time.Time) (*Delegation, error) {
	sum := sha256.Sum256(raw)
	d, newest := v.lookup(sum)
	if d == nil {
		var err error
		if d, err = openDelegation(raw); err != nil {
			return nil, err
		}
	}
	if err := checkTime(d.Issued, d.Expires, now); err != nil {
		return nil, fmt.Errorf("delegation: %w", err)
	}
	if d.Node != node {
		return nil, fmt.Errorf("delegation: %w: it names %s, this is %s", ErrWrongNode, d.Node.Short(), node.Short())
	}
	if newest {
		return d, nil
	}
	return v.accept(sum, d, now)
}

// lookup finds a delegation whose signature was checked, nil if it was not, and
// tells whether none of its identity and node bounds it: the usual case, in which
// nothing is left to remember.
func (v *Verifier) lookup(sum [sha256.Size]byte) (d *Delegation, newest bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, ok := v.signed.Get(sum)
	if !ok {
		return nil, false
	}
	known, ok := v.seen.Get(pair{d.Identity, d.Node})
	return d, ok && known.issued.Equal(d.Issued) && known.expires.Equal(d.Expires)
}

// accept lets an older delegation count at most until the newest one's end, and
// remembers d if it passes.
func (v *Verifier) accept(sum [sha256.Size]byte, d *Delegation, now time.Time) (*Delegation, error) {
	key := pair{d.Identity, d.Node}
	recalled := v.recall(key)
	mine := span{d.Issued, d.Expires}

	v.mu.Lock()
	known, _ := v.seen.Get(key) // another call may have brought a newer one meanwhile
	known = known.merge(recalled)
	if !mine.issued.After(known.issued) && known.expires.Before(mine.expires) {
		mine.expires = known.expires
	}
	accepted := now.Before(mine.expires)
	if accepted {
		v.signed.Put(sum, d)
		v.seen.Put(key, known.merge(mine))
	}
	v.mu.Unlock()

	if !accepted {
		return nil, fmt.Errorf("delegation: %w, which ended at %s",
			ErrSuperseded, mine.expires.UTC().Format(time.RFC3339))
	}
	return d.until(mine.expires), nil
}

// recall asks the durable memory, outside the lock since it may read a disk,
// for what memory does not have.
func (v *Verifier) recall(key pair) span {
	v.mu.Lock()
	known, ok := v.seen.Get(key)
	v.mu.Unlock()
	if ok || v.newest == nil {
		return known
	}
	issued, expires, ok := v.newest.NewestDelegation(key.identity, key.node)
	if !ok {
		return span{}
	}
	return span{issued, expires}
}

// merge keeps the newer; of two issued in the same microsecond the shorter.
func (s span) merge(o span) span {
	switch {
	case o.issued.After(s.issued):
		return o
	case o.issued.Equal(s.issued) && o.expires.Before(s.expires):
		return o
	}
	return s
}

func (d *Delegation) until(t time.Time) *Delegation {
	if d.Expires.Equal(t) {
		return d
	}
	short := *d
	short.Expires = t
	return &short
}
