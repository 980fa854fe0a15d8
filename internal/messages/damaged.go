package messages

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/fastn-stack/fastnd/internal/sqlite"
)

// damagedRow names a row whose digest was wrong when it was read.
type damagedRow struct {
	box    string
	seq    int64
	reason string
}

func (d *damagedRow) Error() string {
	return fmt.Sprintf("row %d of the %s is damaged: %s", d.seq, d.box, d.reason)
}

// setAside moves rows out of their box, after another look at each. sound tells
// that nothing is wrong with one of them: it was found by a bad index.
func (s *Store) setAside(ctx context.Context, rows []damagedRow) (sound bool, err error) {
	if len(rows) == 0 {
		return false, nil
	}
	var moved []Aside
	err = s.healed(ctx, func(h handle) error {
		return h.batch.Do(ctx, func(tx *sqlite.Tx) error {
			moved, sound = moved[:0], false
			for _, r := range rows {
				a, there, err := s.moveAside(tx, r)
				if err != nil {
					return err
				}
				if sound = sound || there && a == nil; a != nil {
					moved = append(moved, *a)
				}
			}
			if len(moved) == 0 {
				return nil
			}
			// Before the commit: who finds a row gone finds it counted.
			return s.countAsideBy(tx.Int)
		})
	})
	if err != nil {
		if len(moved) > 0 {
			s.recountAside(ctx)
		}
		return false, err
	}
	if len(moved) > 0 {
		s.audit.Store(true) // what the rows were counted as cannot be known
	}
	for _, a := range moved {
		if s.o.OnAside != nil {
			s.o.OnAside(a)
		}
	}
	return sound, nil
}

// moveAside gives what was moved, nil if nothing is wrong with that row; there is
// false if there is none.
func (s *Store) moveAside(tx *sqlite.Tx, d damagedRow) (_ *Aside, there bool, err error) {
	a := Aside{Box: d.box, Seq: d.seq, Found: s.now()}
	var data []byte
	query, remove := "SELECT "+outColumns+" FROM outbox WHERE seq = ?", "DELETE FROM outbox WHERE seq = ?"
	if d.box == boxIn {
		query, remove = "SELECT "+inColumns+" FROM inbox WHERE seq = ?", "DELETE FROM inbox WHERE seq = ?"
	}
	err = tx.Query(func(row []any) error {
		there = true
		var m Message
		var bad *damage
		if d.box == boxOut {
			var r outRow
			r, bad = decodeOut(row)
			m = r.Message
		} else {
			var r inRow
			r, bad = decodeIn(row)
			m = r.Message
		}
		if bad != nil {
			a.From, a.To, a.ID, a.Reason, data = m.From, m.To, m.ID, bad.reason, m.Data
		}
		return nil
	}, query, d.seq)
	if err != nil || a.Reason == "" {
		return nil, there, err
	}
	if _, err := tx.Exec("INSERT INTO aside (box, seq, sender, receiver, message_id, found, reason, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		a.Box, a.Seq, a.From[:], a.To[:], a.ID, a.Found.UnixMicro(), a.Reason, data); err != nil {
		return nil, true, err
	}
	_, err = tx.Exec(remove, d.seq)
	return &a, true, err
}

// Aside lists what was set aside, newest first, at most limit.
func (s *Store) Aside(ctx context.Context, limit int) ([]Aside, error) {
	var list []Aside
	err := s.view(ctx, func(tx *sql.Tx) error {
		list = nil
		rows, err := tx.QueryContext(ctx, "SELECT box, seq, sender, receiver, message_id, found, reason FROM aside ORDER BY rowid DESC LIMIT ?", limit)
		if err != nil {
			return err
		}
		return each(rows, func(row []any) (bool, error) {
			c := columns{row: row}
			list = append(list, Aside{Box: next[string](&c, "box"), Seq: next[int64](&c, "seq"), From: c.id("sender"), To: c.id("receiver"),
				ID: next[string](&c, "message_id"), Found: c.time("found"), Reason: next[string](&c, "reason")})
			return true, nil
		})
	})
	return list, err
}

// claim knows rows of the boxes again, by their digests, among what is left of a
// damaged file. Of several copies of a row that is sure which is not the
// earliest: what became of a message is not undone by an old copy.
func claim(rowid int64, row []any) (table string, values []any, sure bool) {
	if len(row) == 0 || row[0] != nil { // seq is the rowid
		return "", nil, false
	}
	row = append([]any{rowid}, row[1:]...)
	switch len(row) {
	case strings.Count(outColumns, ",") + 1:
		if r, bad := decodeOut(row); bad == nil {
			return boxOut, row, r.State != Queued
		}
	case strings.Count(inColumns, ",") + 1:
		if r, bad := decodeIn(row); bad == nil {
			return boxIn, row, r.state != unread
		}
	}
	return "", nil, false
}
