package messages

import (
	"maps"
	"sync"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/sqlite"
)

// What usage counts.
const (
	writeProbe = 0 // nothing: Heal writes it
	queuedBy   = 1 // per sender: messages that are queued, bytes of data that the outbox keeps
	unreadOf   = 2 // per owner and peer: messages that are unread, and their bytes
	allStored  = 3 // rows of both boxes, bytes of data in them
	storedOf   = 5 // per owner and peer: rows of the inbox; without a peer of the outbox
	lastTime   = 4 // nothing: the timekeeper's
)

// rowCost is what a row takes beside its data, with its place in the indexes.
// It makes the memory of messages that are gone part of the node's budget.
const rowCost = 512

type useKey struct {
	kind        int64
	owner, peer identity.ID
}

type use struct{ messages, bytes int64 }

func (u use) plus(v use) use { return use{u.messages + v.messages, u.bytes + v.bytes} }

// usage is what the budgets compare, as committed and as the transaction that
// runs would have it.
type usage struct {
	owner func(identity.ID) (uint32, bool)

	mu        sync.Mutex
	committed map[useKey]use
	pending   map[useKey]use // differences
	saved     map[useKey]use // pending as save found it
	// Sums over committed and pending.
	unread map[identity.ID]int64
	uids   map[uint32]use
	rows   map[identity.ID]int64 // per owner
	stored map[uint32]int64      // the same per uid
	// uidOf is whose the senders are; those in unowned are asked for again.
	uidOf   map[identity.ID]uint32
	unowned map[identity.ID]struct{}
}

func newUsage(owner func(identity.ID) (uint32, bool)) *usage {
	return &usage{owner: owner, committed: map[useKey]use{}, pending: map[useKey]use{}, unread: map[identity.ID]int64{},
		uids: map[uint32]use{}, rows: map[identity.ID]int64{}, stored: map[uint32]int64{}, uidOf: map[identity.ID]uint32{}, unowned: map[identity.ID]struct{}{}}
}

// add counts within the transaction that runs.
func (u *usage) add(kind int64, owner, peer identity.ID, messages, bytes int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	k, d := useKey{kind, owner, peer}, use{messages, bytes}
	u.pending[k] = u.pending[k].plus(d)
	u.sum(k, d)
}

func (u *usage) sum(k useKey, d use) {
	switch k.kind {
	case unreadOf:
		if u.unread[k.owner] += d.messages; u.unread[k.owner] == 0 {
			delete(u.unread, k.owner)
		}
	case queuedBy:
		if uid, ok := u.uidOf[k.owner]; ok {
			u.uids[uid] = u.uids[uid].plus(d)
		} else {
			u.unowned[k.owner] = struct{}{}
		}
	case storedOf:
		if u.rows[k.owner] += d.messages; u.rows[k.owner] == 0 {
			delete(u.rows, k.owner)
		}
		if uid, ok := u.uidOf[k.owner]; ok {
			u.stored[uid] += d.messages
		} else {
			u.unowned[k.owner] = struct{}{}
		}
	}
}

func (u *usage) get(kind int64, owner, peer identity.ID) use {
	u.mu.Lock()
	defer u.mu.Unlock()
	k := useKey{kind, owner, peer}
	return u.committed[k].plus(u.pending[k])
}

// onDisk is what the node's budget counts.
func (u *usage) onDisk() int64 {
	all := u.get(allStored, identity.ID{}, identity.ID{})
	return all.bytes + all.messages*rowCost
}

// queued is what all identities of a uid have in the outbox.
func (u *usage) queued(uid uint32) use {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.findOwners()
	return u.uids[uid]
}

// storedBy is how many rows all identities of a uid have in both boxes.
func (u *usage) storedBy(uid uint32) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.findOwners()
	return u.stored[uid]
}

// sendersOf gives the identities of a uid that have rows, first before the others.
func (u *usage) sendersOf(uid uint32, first identity.ID) []identity.ID {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.findOwners()
	list := []identity.ID{first}
	for id, whose := range u.uidOf {
		if whose == uid && id != first {
			list = append(list, id)
		}
	}
	return list
}

func (u *usage) findOwners() {
	for id := range u.unowned {
		if whose, ok := u.owner(id); ok {
			delete(u.unowned, id)
			k := useKey{kind: queuedBy, owner: id}
			u.uidOf[id] = whose
			u.uids[whose] = u.uids[whose].plus(u.committed[k]).plus(u.pending[k])
			u.stored[whose] += u.rows[id]
		}
	}
}

func (u *usage) unreadBy(owner identity.ID) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.unread[owner]
}

// begin forgets what a transaction that is undone had counted.
func (u *usage) begin() { u.end(false) }

func (u *usage) end(committed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for k, d := range u.pending {
		if !committed {
			u.sum(k, use{-d.messages, -d.bytes})
			continue
		}
		if u.committed[k] = u.committed[k].plus(d); u.committed[k] == (use{}) {
			delete(u.committed, k)
		}
	}
	clear(u.pending)
}

// save keeps what was counted, for undo: a function that fails beside others is
// undone alone.
func (u *usage) save() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.saved = maps.Clone(u.pending)
}

func (u *usage) undo() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for k, d := range u.pending {
		was := u.saved[k]
		u.sum(k, use{was.messages - d.messages, was.bytes - d.bytes})
	}
	u.pending = u.saved
}

// write puts what the transaction changed on the disk.
func (u *usage) write(tx *sqlite.Tx) error {
	u.mu.Lock()
	defer u.mu.Unlock() // the pages are in memory; the commit comes later
	for k, d := range u.pending {
		if d == (use{}) {
			continue
		}
		var err error
		if v := u.committed[k].plus(d); v == (use{}) {
			_, err = tx.Exec("DELETE FROM usage WHERE kind = ? AND owner = ? AND peer = ?", k.kind, k.owner[:], k.peer[:])
		} else {
			_, err = tx.Exec(`INSERT INTO usage (kind, owner, peer, messages, bytes) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (kind, owner, peer) DO UPDATE SET messages = excluded.messages, bytes = excluded.bytes`,
				k.kind, k.owner[:], k.peer[:], v.messages, v.bytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// load takes what the disk has.
func (u *usage) load(k useKey, v use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.committed[k] = v
	u.sum(k, v)
}

// snapshot copies what is committed.
func (u *usage) snapshot() map[useKey]use {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := make(map[useKey]use, len(u.committed))
	for k, v := range u.committed {
		c[k] = v
	}
	return c
}
