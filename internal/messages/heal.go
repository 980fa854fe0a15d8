package messages

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/service/api"
)

var errClosed = api.Errorf(api.CodeUnavailable, "the message store is closed")

// heal opens the database again, which repairs it. damaged is the one that was
// found so; nil if none is open.
func (s *Store) heal(ctx context.Context, damaged *sqlite.DB, cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(s.broken, errClosed):
		return errClosed
	case s.db != nil && s.db != damaged:
		return nil // somebody else did it
	case s.pause.Left(s.o.Now()) > 0:
		if s.db == nil {
			cause = s.broken // somebody else found out more
		}
		return fmt.Errorf("damaged again: %w", cause)
	}
	s.pause.Note(s.o.Now())
	return s.reopen(ctx)
}

// reopen is for who holds mu.
func (s *Store) reopen(ctx context.Context) error {
	defer s.mend()()
	if s.db != nil {
		// Closing may fail as the rest did; what counts is whether it opens.
		_ = errors.Join(s.db.Suspect(), s.db.Close())
		s.db, s.batch = nil, nil
	}
	// Not the caller's context: the others wait for this too.
	if err := s.open(context.WithoutCancel(ctx)); err != nil {
		s.broken = err
		return err
	}
	if r := s.db.Recovery(); r != nil && s.o.OnRecovery != nil {
		s.o.OnRecovery(r)
	}
	return nil
}

// mend notes since when nothing can be read or written.
func (s *Store) mend() (end func()) {
	now := time.Now()
	s.mending.Store(&now)
	return func() { s.mending.Store(nil) }
}

// Heal finds out by a write whether the disk takes messages again.
func (s *Store) Heal(ctx context.Context) error {
	s.mu.Lock()
	if s.db == nil && !errors.Is(s.broken, errClosed) { // the disk may have been why
		_ = s.reopen(ctx) // as the write tells
	}
	s.mu.Unlock()
	return s.write(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.Exec("INSERT OR REPLACE INTO usage (kind, owner, peer, messages, bytes) VALUES (?, x'', x'', 0, 0)", int64(writeProbe))
		return err
	})
}

// load fills what is kept in memory.
func (s *Store) load(ctx context.Context, db *sqlite.DB, batch *sqlite.Batch, use *usage, want *wants) error {
	if err := s.time.load(ctx, db); err != nil {
		return err
	}
	if db.Recovery() != nil {
		if err := audit(ctx, db, batch, use); err != nil {
			return err
		}
	}
	return db.View(ctx, func(tx *sql.Tx) error {
		if err := s.countAside(ctx, tx); err != nil {
			return err
		}
		if db.Recovery() == nil {
			if err := loadUsage(ctx, tx, use); err != nil {
				return err
			}
		}
		return want.load(ctx, tx)
	})
}

func loadUsage(ctx context.Context, tx *sql.Tx, use_ *usage) error {
	rows, err := tx.QueryContext(ctx, "SELECT kind, owner, peer, messages, bytes FROM usage")
	if err != nil {
		return err
	}
	return each(rows, func(row []any) (bool, error) {
		c := columns{row: row}
		k := useKey{next[int64](&c, "kind"), c.id("owner"), c.id("peer")}
		v := use{next[int64](&c, "messages"), next[int64](&c, "bytes")}
		if c.bad == nil {
			use_.load(k, v)
		}
		return true, nil
	})
}

// audit counts anew what usage says, and corrects it. After a recovery the
// counters on the disk count for nothing.
func audit(ctx context.Context, db *sqlite.DB, batch *sqlite.Batch, u *usage) error {
	var snapshot *sqlite.Snapshot
	var before map[useKey]use
	// While the writer is ours nothing else is committed: the snapshot and the
	// counters in memory are of the same moment.
	err := batch.Do(ctx, func(tx *sqlite.Tx) (err error) {
		if snapshot != nil {
			err = snapshot.Close()
		}
		if err == nil {
			before = u.snapshot()
			snapshot, err = db.Snapshot(ctx)
		}
		return err
	})
	if err != nil {
		if snapshot != nil { // what failed came after it
			_ = snapshot.Close()
		}
		return err
	}
	counted, err := count(ctx, snapshot.Tx())
	if err := errors.Join(err, snapshot.Close()); err != nil {
		return err
	}
	for k := range before {
		if _, ok := counted[k]; !ok {
			counted[k] = use{}
		}
	}
	return batch.Do(ctx, func(tx *sqlite.Tx) error {
		for k, is := range counted {
			was := before[k]
			u.add(k.kind, k.owner, k.peer, is.messages-was.messages, is.bytes-was.bytes)
		}
		return nil
	})
}

func count(ctx context.Context, tx *sql.Tx) (map[useKey]use, error) {
	total := map[useKey]use{}
	sum := func(query string, kind func(c *columns) useKey) error {
		rows, err := tx.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		return each(rows, func(row []any) (bool, error) {
			c := columns{row: row}
			k := kind(&c)
			v := use{next[int64](&c, "messages"), next[int64](&c, "bytes")}
			if c.bad == nil && v != (use{}) {
				total[k] = total[k].plus(v)
			}
			return true, nil
		})
	}
	node := func(*columns) useKey { return useKey{kind: allStored} }
	return total, errors.Join(
		sum("SELECT sender, sum(state = 'queued'), sum(iif(data IS NULL, 0, size)) FROM outbox GROUP BY sender",
			func(c *columns) useKey { return useKey{kind: queuedBy, owner: c.id("sender")} }),
		sum("SELECT owner, sender, count(*), sum(size) FROM inbox WHERE state = 'unread' GROUP BY owner, sender",
			func(c *columns) useKey { return useKey{unreadOf, c.id("owner"), c.id("sender")} }),
		sum("SELECT sender, count(*), 0 FROM outbox GROUP BY sender", func(c *columns) useKey { return useKey{kind: storedOf, owner: c.id("sender")} }),
		sum("SELECT owner, sender, count(*), 0 FROM inbox GROUP BY owner, sender",
			func(c *columns) useKey { return useKey{storedOf, c.id("owner"), c.id("sender")} }),
		sum("SELECT count(*), coalesce(sum(iif(data IS NULL, 0, size)), 0) FROM outbox", node),
		sum("SELECT count(*), coalesce(sum(iif(data IS NULL, 0, size)), 0) FROM inbox", node),
	)
}

func (u *usage) forget(id identity.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.uidOf, id)
	delete(u.unowned, id)
}
