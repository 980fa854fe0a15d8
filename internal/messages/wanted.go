package messages

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/sqlite"
)

const (
	wantsPerSender = 16
	wantsPerOwner  = 1_000
	wantsPerNode   = 20_000
	// forgetWant is how long what was wanted last has its place although another
	// one would take it: else a peer that goes through names would have the
	// user told of each, without end.
	forgetWant = 24 * time.Hour
)

type wantKey struct {
	sender             identity.ID
	protocol, instance string
}

type want struct {
	count       int64
	first, last time.Time
	dirty       bool  // the disk has an older count
	serial      int64 // of the last time that it was asked for
	leaving     bool  // it is being forgotten: who asks now is noted anew
}

// wants is what peers wanted. Only new names are written at once; how often
// they were asked for is written now and then.
type wants struct {
	mu      sync.Mutex
	byOwner map[identity.ID]map[wantKey]*want
	total   int
	asks    *atomic.Int64 // serial numbers, which go on when a file is opened again
}

// wants are those of the database that is open now.
func (s *Store) wants() *wants {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.want
}

func newWants(asks *atomic.Int64) *wants {
	return &wants{byOwner: map[identity.ID]map[wantKey]*want{}, asks: asks}
}

func (w *wants) load(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, "SELECT owner, sender, protocol, instance, count, first, last FROM wanted")
	if err != nil {
		return err
	}
	return each(rows, func(row []any) (bool, error) {
		c := columns{row: row}
		owner := c.id("owner")
		k := wantKey{c.id("sender"), next[string](&c, "protocol"), next[string](&c, "instance")}
		v := &want{count: next[int64](&c, "count"), first: c.time("first"), last: c.time("last")}
		if c.bad == nil {
			w.set(owner, k, v)
		}
		return true, nil
	})
}

func (w *wants) set(owner identity.ID, k wantKey, v *want) {
	if w.byOwner[owner] == nil {
		w.byOwner[owner] = map[wantKey]*want{}
	}
	if w.byOwner[owner][k] == nil {
		w.total++
	}
	v.serial = w.asks.Add(1)
	w.byOwner[owner][k] = v
}

func (w *wants) remove(owner identity.ID, k wantKey) {
	if _, ok := w.byOwner[owner][k]; !ok {
		return
	}
	w.total--
	if delete(w.byOwner[owner], k); len(w.byOwner[owner]) == 0 {
		delete(w.byOwner, owner)
	}
}

// again counts what is known; false if it is not.
func (w *wants) again(owner identity.ID, k wantKey, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count(w.byOwner[owner][k], now)
}

// count is for who holds mu.
func (w *wants) count(v *want, now time.Time) bool {
	if v == nil || v.leaving {
		return false
	}
	v.count, v.last, v.dirty, v.serial = v.count+1, now, true, w.asks.Add(1)
	return true
}

// leave tells what is to be forgotten for one more name, and marks it as leaving; not ok
// if there is no room.
func (w *wants) leave(owner identity.ID, sender identity.ID, now time.Time) (forget []wantKey, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var oldest, oldestOfSender wantKey
	var last, lastOfSender time.Time
	ofSender := 0
	for other, v := range w.byOwner[owner] {
		if last.IsZero() || v.last.Before(last) {
			oldest, last = other, v.last
		}
		if other.sender != sender {
			continue
		}
		if ofSender++; lastOfSender.IsZero() || v.last.Before(lastOfSender) {
			oldestOfSender, lastOfSender = other, v.last
		}
	}
	switch {
	case ofSender >= wantsPerSender:
		oldest, last = oldestOfSender, lastOfSender
	case len(w.byOwner[owner]) < wantsPerOwner:
		return nil, w.total < wantsPerNode
	}
	if now.Sub(last) < forgetWant {
		return nil, false
	}
	w.byOwner[owner][oldest].leaving = true
	return []wantKey{oldest}, true
}

// stay is for what was to leave, and does not.
func (w *wants) stay(owner identity.ID, keys ...wantKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range keys {
		if v := w.byOwner[owner][k]; v != nil {
			v.leaving = false
		}
	}
}

// changeWants waits until nobody else changes what is wanted: on the disk and in memory
// it changes together.
func (s *Store) changeWants(ctx context.Context) (done func(), err error) {
	select {
	case s.changing <- struct{}{}:
		return func() { <-s.changing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Want counts that sender asked owner for a protocol that is not served, or not
// granted. first tells that the user is to be told: once per peer and protocol.
// Of one sender 16 names are kept, of all 1,000; more are not told or kept until
// one of those was not asked for during a day.
func (s *Store) Want(ctx context.Context, owner, sender identity.ID, protocol, instance string) (first bool, err error) {
	now, k := s.now(), wantKey{sender, protocol, instance}
	if s.wants().again(owner, k, now) { // as who asks without end does: the disk need not hear it
		return false, nil
	}
	done, err := s.changeWants(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	w := s.wants()
	if w.again(owner, k, now) {
		return false, nil
	}
	forget, ok := w.leave(owner, sender, now)
	if !ok {
		return false, nil
	}
	wrote := w
	err = s.write(ctx, func(tx *sqlite.Tx) error {
		wrote = s.want // another one if the file was repaired meanwhile
		for _, f := range forget {
			if err := deleteWant(tx, owner, f); err != nil {
				return err
			}
		}
		n, err := tx.Exec(`INSERT INTO wanted (owner, sender, protocol, instance, count, first, last) VALUES (?, ?, ?, ?, 1, ?, ?)
			ON CONFLICT (owner, sender, protocol, instance) DO NOTHING`, owner[:], sender[:], protocol, instance, now.UnixMicro(), now.UnixMicro())
		first = n > 0
		return err
	})
	if err != nil {
		w.stay(owner, forget...)
		return false, err
	}
	wrote.mu.Lock()
	defer wrote.mu.Unlock()
	for _, f := range forget {
		wrote.remove(owner, f)
	}
	wrote.set(owner, k, &want{count: 1, first: now, last: now})
	return first, nil
}

func deleteWant(tx *sqlite.Tx, owner identity.ID, k wantKey) error {
	_, err := tx.Exec("DELETE FROM wanted WHERE owner = ? AND sender = ? AND protocol = ? AND instance = ?", owner[:], k.sender[:], k.protocol, k.instance)
	return err
}

// Wanted lists what was wanted of owner, newest first.
func (s *Store) Wanted(_ context.Context, owner identity.ID) ([]Wanted, error) {
	w := s.wants()
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]Wanted, 0, len(w.byOwner[owner]))
	for k, v := range w.byOwner[owner] {
		list = append(list, v.wanted(k))
	}
	slices.SortFunc(list, func(a, b Wanted) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Protocol, b.Protocol), slices.Compare(a.Sender[:], b.Sender[:]))
	})
	return list, nil
}

// wantedOwners are those of whom something is wanted.
func (s *Store) wantedOwners() []identity.ID {
	w := s.wants()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.byOwner))
}

func (v *want) wanted(k wantKey) Wanted {
	return Wanted{k.sender, k.protocol, k.instance, v.count, v.first, v.last, v.serial}
}

// wantedNow is one of Wanted.
func (s *Store) wantedNow(owner identity.ID, k wantKey) (Wanted, bool) {
	w := s.wants()
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.byOwner[owner][k]
	if v == nil || v.leaving {
		return Wanted{}, false
	}
	return v.wanted(k), true
}

// Served forgets a want whose sender was told that it is served now. If that has asked in
// vain since it was listed so, it is kept, and again is true.
func (s *Store) Served(ctx context.Context, owner identity.ID, was Wanted) (again bool, err error) {
	done, err := s.changeWants(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	w, k := s.wants(), wantKey{was.Sender, was.Protocol, was.Instance}
	known, same := w.leaveIf(owner, k, was.serial)
	if !same {
		return known, nil
	}
	err = s.write(ctx, func(tx *sqlite.Tx) error {
		if again = s.want != w; again { // the file was repaired meanwhile
			return nil
		}
		return deleteWant(tx, owner, k)
	})
	if err != nil || again {
		w.stay(owner, k)
		return again, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(owner, k)
	return false, nil
}

// leaveIf marks k as leaving if it was not asked for since serial.
func (w *wants) leaveIf(owner identity.ID, k wantKey, serial int64) (known, same bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.byOwner[owner][k]
	if v == nil {
		return false, false
	}
	v.leaving = v.serial == serial
	return true, v.leaving
}

// flushWants writes the counts that changed.
func (s *Store) flushWants(ctx context.Context) error {
	type row struct {
		owner identity.ID
		k     wantKey
		v     want
	}
	w := s.wants()
	var dirty []row
	w.mu.Lock()
	for owner, of := range w.byOwner {
		for k, v := range of {
			if v.dirty {
				dirty = append(dirty, row{owner, k, *v})
				v.dirty = false
			}
		}
	}
	w.mu.Unlock()
	if len(dirty) == 0 {
		return nil
	}
	return s.write(ctx, func(tx *sqlite.Tx) error {
		for _, r := range dirty {
			if _, err := tx.Exec("UPDATE wanted SET count = ?, last = ? WHERE owner = ? AND sender = ? AND protocol = ? AND instance = ?",
				r.v.count, r.v.last.UnixMicro(), r.owner[:], r.k.sender[:], r.k.protocol, r.k.instance); err != nil {
				return err
			}
		}
		return nil
	})
}
