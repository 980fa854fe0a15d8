package ipc

import (
	"sync"

	"github.com/fastn-stack/fastnd/service/api"
)

// byteBudget bounds, in bytes for each uid, what its connections hold of long
// lines and of requests in flight. What fits in a connection's idle buffer counts
// for nothing: their number bounds it.
type byteBudget struct {
	most int

	mu   sync.Mutex
	used map[uint32]int
}

// take counts n bytes for uid; false, and nothing is counted, if that is too much.
func (b *byteBudget) take(uid uint32, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used[uid]+n > b.most {
		return false
	}
	if b.used == nil {
		b.used = make(map[uint32]int)
	}
	b.used[uid] += n
	return true
}

func (b *byteBudget) give(uid uint32, n int) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used[uid] -= n; b.used[uid] == 0 {
		delete(b.used, uid)
	}
}

// bytesOver is the error of a line that the budget has no room for.
func (c *conn) bytesOver() *api.Error {
	return api.Errorf(api.CodeOverBudget, "over budget: bytes of requests in flight of user %s, at most %d; nothing was done", c.caller.User, c.s.bytes.most).
		WithHint("wait until some of yours are answered, and send no unfinished lines")
}

// giveHeld gives back what the request counted that nobody has taken.
func (c *conn) giveHeld() {
	c.s.bytes.give(c.caller.UID, c.held)
	c.held = 0
}
