package ipc

import "sync"

const (
	// mostLingering is how many refused connections are lingered on at once: each
	// costs a descriptor.
	mostLingering = 64
	// mostLingeringOf is how many of them are one uid's, so that nobody can keep
	// others from reading why they are refused.
	mostLingeringOf = 8
)

// lingering counts the refused connections that are lingered on.
type lingering struct {
	mu  sync.Mutex
	all int
	of  map[uint32]int // never 0
}

// take takes a place for a connection of uid; false if there is none.
func (l *lingering) take(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == mostLingering || l.of[uid] == mostLingeringOf {
		return false
	}
	if l.of == nil {
		l.of = make(map[uint32]int)
	}
	l.all++
	l.of[uid]++
	return true
}

func (l *lingering) give(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.of[uid]--; l.of[uid] == 0 {
		delete(l.of, uid)
	}
}
