package messages

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/sqlite"
)

// atOnce bounds the rows that one transaction of housekeeping changes.
const atOnce = 500

// Prune forgets what is past its time: final messages and the memory of those
// gone after Remembered, read ones after Limits.KeepRead. What an index says, of
// which a bit may have changed, is looked up in the row before anything goes. It
// forgets nothing while the clock is doubted; see Jump.
func (s *Store) Prune(ctx context.Context) error {
	err := s.flushWants(ctx)
	if now, believed := s.clock(); believed {
		err = errors.Join(err, s.forgetOld(ctx, now))
	}
	return errors.Join(err, s.auditIfNeeded(ctx))
}

func (s *Store) forgetOld(ctx context.Context, now time.Time) error {
	forget, unread := now.Add(-Remembered).UnixMicro(), now.Add(-s.o.Limits().KeepRead).UnixMicro()
	return errors.Join(
		s.repeat(ctx, func(tx *sqlite.Tx) (int, error) { return s.dropRead(tx, unread) }),
		s.repeat(ctx, func(tx *sqlite.Tx) (int, error) {
			return s.deleteRows(tx, `DELETE FROM inbox WHERE +state = 'gone' AND +received < ?1 AND seq IN
				(SELECT seq FROM inbox INDEXED BY inbox_gone WHERE state = 'gone' AND received < ?1 ORDER BY received LIMIT ?2) RETURNING owner, sender, 0, 0`, forget)
		}),
		s.repeat(ctx, func(tx *sqlite.Tx) (int, error) {
			return s.deleteRows(tx, `DELETE FROM outbox WHERE +state <> 'queued' AND +done < ?1 AND seq IN
				(SELECT seq FROM outbox INDEXED BY outbox_done WHERE state <> 'queued' AND done < ?1 ORDER BY done LIMIT ?2) RETURNING sender, zeroblob(32), 0, iif(data IS NULL, 0, size)`, forget)
		}),
		s.pruneAside(ctx, forget),
	)
}

// repeat calls fn in transactions of its own until it changes fewer rows than it may.
func (s *Store) repeat(ctx context.Context, fn func(tx *sqlite.Tx) (int, error)) error {
	for n := atOnce; n >= atOnce; {
		if err := s.write(ctx, func(tx *sqlite.Tx) (err error) { n, err = fn(tx); return err }); err != nil {
			return err
		}
	}
	return nil
}

// dropRead removes read messages that were read before a time.
func (s *Store) dropRead(tx *sqlite.Tx, before int64) (n int, err error) {
	var rows []inRow
	err = tx.Query(func(row []any) error {
		r, bad := decodeInColumns(row)
		if bad != nil {
			return &damagedRow{boxIn, r.Seq, bad.reason}
		}
		rows = append(rows, r)
		return nil
	}, "SELECT "+inNoData+` FROM inbox WHERE +state = 'read' AND +seen < ?1 AND seq IN
		(SELECT seq FROM inbox INDEXED BY inbox_read WHERE state = 'read' AND seen < ?1 ORDER BY seen LIMIT ?2)`, before, int64(atOnce))
	for i := range rows {
		err = errors.Join(err, s.drop(tx, &rows[i]))
	}
	return len(rows), err
}

// deleteRows runs a statement that deletes at most atOnce rows and returns of
// each whose it is, the peer if it was received, whether it was queued, and the bytes
// that it kept.
func (s *Store) deleteRows(tx *sqlite.Tx, query string, args ...any) (n int, err error) {
	err = tx.Query(func(row []any) error {
		c := columns{row: row}
		own, peer, queued, bytes := c.id("owner"), c.id("peer"), next[int64](&c, "queued"), next[int64](&c, "bytes")
		if n++; c.bad != nil {
			return nil
		}
		if queued != 0 || bytes != 0 {
			s.use.add(queuedBy, own, identity.ID{}, -queued, -bytes)
		}
		s.use.add(storedOf, own, peer, -1, 0)
		s.use.add(allStored, identity.ID{}, identity.ID{}, -1, -bytes)
		return nil
	}, query, append(args, int64(atOnce))...)
	return n, err
}

func (s *Store) pruneAside(ctx context.Context, before int64) error {
	err := s.write(ctx, func(tx *sqlite.Tx) error {
		// The last one stays: its number is not given again, which somebody has seen.
		if _, err := tx.Exec("DELETE FROM aside WHERE found < ? AND rowid < (SELECT max(rowid) FROM aside)", before); err != nil {
			return err
		}
		return s.countAsideBy(tx.Int)
	})
	if err != nil && ctx.Err() == nil {
		s.recountAside(ctx)
	}
	return err
}

func (s *Store) auditIfNeeded(ctx context.Context) error {
	if !s.audit.Swap(false) {
		return nil
	}
	err := s.sorted(ctx, func(h handle) error { return audit(ctx, h.db, h.batch, s.use) })
	if err != nil {
		s.audit.Store(true)
	}
	return err
}

// Forget removes all of an identity that left this machine. What others here
// have queued for it stays.
func (s *Store) Forget(ctx context.Context, id identity.ID) error {
	err := errors.Join(
		s.write(ctx, func(tx *sqlite.Tx) error {
			_, err := tx.Exec("DELETE FROM waits WHERE lane IN (SELECT DISTINCT lane FROM outbox INDEXED BY outbox_lane WHERE state = 'queued' AND who = ?)", short(id))
			return err
		}),
		s.repeat(ctx, func(tx *sqlite.Tx) (int, error) { return s.forgetOutbox(tx, id) }),
		s.repeat(ctx, func(tx *sqlite.Tx) (int, error) { return s.forgetInbox(tx, id, "state <> 'gone'") }),
		s.repeat(ctx, func(tx *sqlite.Tx) (int, error) { return s.forgetInbox(tx, id, "state = 'gone'") }),
		s.forgetWants(ctx, id),
	)
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.use.forget(id)
	return err
}

func (s *Store) forgetOutbox(tx *sqlite.Tx, sender identity.ID) (int, error) {
	const query = `DELETE FROM outbox WHERE +who = ?1 AND seq IN (SELECT seq FROM outbox WHERE who = ?1 AND %s LIMIT ?2)
		RETURNING sender, zeroblob(32), state = 'queued', iif(data IS NULL, 0, size)`
	queued, err := s.deleteRows(tx, strings.Replace(query, "%s", "state = 'queued'", 1), short(sender))
	if err != nil || queued > 0 {
		return atOnce, err // once more
	}
	return s.deleteRows(tx, strings.Replace(query, "%s", "state <> 'queued'", 1), short(sender))
}

func (s *Store) forgetInbox(tx *sqlite.Tx, owner identity.ID, state string) (n int, err error) {
	err = tx.Query(func(row []any) error {
		c := columns{row: row}
		from, unread, stored, size := c.id("sender"), next[int64](&c, "unread"), next[int64](&c, "stored"), next[int64](&c, "size")
		if n++; c.bad != nil {
			return nil
		}
		if unread != 0 {
			s.countIn(owner, from, -1, -size)
		}
		s.use.add(storedOf, owner, from, -1, 0)
		s.use.add(allStored, identity.ID{}, identity.ID{}, -1, -stored*size)
		return nil
	}, "DELETE FROM inbox WHERE +who = ?1 AND seq IN (SELECT seq FROM inbox WHERE who = ?1 AND "+state+" LIMIT ?2) RETURNING sender, state = 'unread', data IS NOT NULL, size", short(owner), int64(atOnce))
	return n, err
}

func (s *Store) forgetWants(ctx context.Context, owner identity.ID) error {
	done, err := s.changeWants(ctx)
	if err != nil {
		return err
	}
	defer done()
	err = s.write(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.Exec("DELETE FROM wanted WHERE owner = ?", owner[:])
		return err
	})
	if err != nil {
		return err
	}
	w := s.wants()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total -= len(w.byOwner[owner])
	delete(w.byOwner, owner)
	return nil
}

// Backup writes a consistent copy to path, of mode 0600, which must not exist.
func (s *Store) Backup(ctx context.Context, path string) error {
	return s.sorted(ctx, func(h handle) error { return h.db.Backup(ctx, path) })
}

// CheckAll reads everything: the file's structure, each row's digest, and the
// counters. It is meant to run in the background after Open, which looks only
// at a few pages. Damage is mended as at Open, and told by OnAside, OnRecovery.
func (s *Store) CheckAll(ctx context.Context) error {
	if err := s.sorted(ctx, func(h handle) error { return h.db.CheckAll(ctx) }); err != nil {
		return err
	}
	for _, box := range []string{boxOut, boxIn} {
		if err := s.checkRows(ctx, box); err != nil {
			return err
		}
	}
	s.audit.Store(true)
	return s.auditIfNeeded(ctx)
}

// checkRows checks the digests of a box, some at a time so that the log can be
// folded in between.
func (s *Store) checkRows(ctx context.Context, box string) error {
	const (
		rowsAtOnce  = 512
		bytesAtOnce = 8 << 20
	)
	query := "SELECT " + outColumns + " FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?"
	decode := func(row []any) (int64, int, *damage) {
		r, bad := decodeOut(row)
		return r.Seq, len(r.Data), bad
	}
	if box == boxIn {
		query = "SELECT " + inColumns + " FROM inbox WHERE seq > ? ORDER BY seq LIMIT ?"
		decode = func(row []any) (int64, int, *damage) {
			r, bad := decodeIn(row)
			return r.Seq, len(r.Data), bad
		}
	}
	for after, more := int64(0), true; more; {
		var bad []damagedRow
		last, end := after, false
		err := s.view(ctx, func(tx *sql.Tx) error {
			bad, last, end = nil, after, true
			rows, err := tx.QueryContext(ctx, query, after, rowsAtOnce)
			if err != nil {
				return err
			}
			n, size := 0, 0
			return each(rows, func(row []any) (bool, error) {
				seq, bytes, damaged := decode(row)
				if damaged != nil {
					bad = append(bad, damagedRow{box, seq, damaged.reason})
				}
				last, n, size = seq, n+1, size+bytes
				end = n < rowsAtOnce && size < bytesAtOnce
				return size < bytesAtOnce, nil
			})
		})
		if err != nil {
			return err
		}
		if _, err := s.setAside(ctx, bad); err != nil {
			return err
		}
		after, more = last, !end
	}
	return nil
}
