package messages

import (
	"context"
	"sync"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// turnsEach is how many may read for one user at the same time. It is less than
// there are readers: one who lists his inbox a thousand times at once waits for
// himself, and nobody else does.
const turnsEach = 2

// Turn waits until the user whose identity owner is may list. Whoever calls ListIn,
// ListOut or Incoming for a user has one, and has one only. Its error is that of ctx.
func (s *Store) Turn(ctx context.Context, owner identity.ID) (leave func(), err error) {
	return s.lists.enter(ctx, owner)
}

// turns lets turnsEach in for each user, the first that came first.
type turns struct {
	owner func(identity.ID) (uint32, bool)

	mu sync.Mutex
	of map[user]*turn
}

// user is whose an identity is. Those of identities that are nobody's are one.
type user struct {
	uid    uint32
	nobody bool
}

func userOf(owner func(identity.ID) (uint32, bool), id identity.ID) user {
	uid, ok := owner(id)
	return user{uid, !ok}
}

type turn struct {
	places chan struct{}
	users  int // that wait or are in; guarded by turns.mu
}

func newTurns(owner func(identity.ID) (uint32, bool)) turns {
	return turns{owner: owner, of: make(map[user]*turn)}
}

// enter waits for a turn of the user whose identity id is. Its error is that of ctx.
func (t *turns) enter(ctx context.Context, id identity.ID) (leave func(), err error) {
	who := userOf(t.owner, id)
	t.mu.Lock()
	one := t.of[who]
	if one == nil {
		one = &turn{places: make(chan struct{}, turnsEach)}
		t.of[who] = one
	}
	one.users++
	t.mu.Unlock()
	forget := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(t.of, who)
		}
	}
	select {
	case one.places <- struct{}{}:
		return func() { <-one.places; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
}
