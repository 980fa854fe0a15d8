package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// holders counts which processes hold a user's connections: who has used them up
// is told what to end. A budget of connections bounds how many there are.
type holders struct {
	mu    sync.Mutex
	byUID map[uint32]map[int32]int
}

// enter counts one connection of pid until leave, which is called once.
func (h *holders) enter(uid uint32, pid int32) (leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byUID == nil {
		h.byUID = make(map[uint32]map[int32]int)
	}
	if h.byUID[uid] == nil {
		h.byUID[uid] = make(map[int32]int)
	}
	h.byUID[uid][pid]++
	return func() { h.leave(uid, pid) }
}

func (h *holders) leave(uid uint32, pid int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	pids := h.byUID[uid]
	if pids[pid]--; pids[pid] == 0 {
		delete(pids, pid)
	}
	if len(pids) == 0 {
		delete(h.byUID, uid)
	}
}

// shownHolders is how many processes a refusal names.
const shownHolders = 3

// most names the processes with most of uid's connections, "" if none is known:
// one of another PID namespace has no number here.
func (h *holders) most(uid uint32) string {
	h.mu.Lock()
	pids := maps.Clone(h.byUID[uid])
	h.mu.Unlock()
	delete(pids, 0)
	order := slices.SortedFunc(maps.Keys(pids), func(a, b int32) int {
		return cmp.Or(cmp.Compare(pids[b], pids[a]), cmp.Compare(a, b))
	})
	var out []string
	for _, pid := range order[:min(len(order), shownHolders)] {
		out = append(out, fmt.Sprintf("pid %d (%d)", pid, pids[pid]))
	}
	if more := len(order) - len(out); more > 0 {
		out = append(out, fmt.Sprintf("%d more", more))
	}
	return strings.Join(out, ", ")
}
