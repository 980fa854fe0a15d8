package daemon

import (
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/peercred"
)

const (
	// nameTTL is how long a user's name is remembered: a directory service may
	// take its time for each question.
	nameTTL = time.Minute
	// namesMost bounds the names remembered.
	namesMost = 4096
)

// userNames remembers what users are called.
type userNames struct {
	mu    sync.Mutex
	known map[uint32]userName
}

type userName struct {
	name  string
	until time.Time
}

// get is the name of uid, or "uid-N" where none is known.
func (u *userNames) get(uid uint32) string {
	now := time.Now()
	u.mu.Lock()
	n, ok := u.known[uid]
	u.mu.Unlock()
	if ok && now.Before(n.until) {
		return n.name
	}
	name := peercred.UserName(uid) // may take long: not under the lock
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known == nil || len(u.known) >= namesMost {
		u.known = make(map[uint32]userName)
	}
	u.known[uid] = userName{name, now.Add(nameTTL)}
	return name
}
