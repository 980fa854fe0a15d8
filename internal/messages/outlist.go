package messages

import (
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
)

const defaultLimit = 256

func (p Page) limit() int {
	if p.Limit <= 0 {
		return defaultLimit
	}
	return p.Limit
}

// full tells that a page with n messages of size bytes has no room for more.
func (p Page) full(n, size, more int) bool {
	return n >= p.limit() || n > 0 && p.MaxBytes > 0 && size+more > p.MaxBytes
}

// Lanes lists all lanes that have queued messages.
func (s *Store) Lanes(ctx context.Context) ([]Waiting, error) {
	var list []Waiting
	err := s.view(ctx, func(tx *sql.Tx) error {
		list = nil
		// The first row of each lane, from one to the next: rows are many, lanes are few.
		head, err := tx.PrepareContext(ctx, "SELECT "+outNoData+` FROM outbox INDEXED BY outbox_lane
			WHERE state = 'queued' AND (who, lane) > (?, ?) ORDER BY who, lane, seq LIMIT 1`)
		if err != nil {
			return err
		}
		defer func() { _ = head.Close() }()
		wait, err := tx.PrepareContext(ctx, "SELECT tries, next_try, code, reason FROM waits WHERE lane = ?")
		if err != nil {
			return err
		}
		defer func() { _ = wait.Close() }()
		who, lane := int64(math.MinInt64), int64(math.MinInt64)
		for {
			r, err := one(ctx, head, decodeOutColumns, boxOut, who, lane)
			if err != nil || r == nil {
				return err
			}
			if bad := misplaced(r.State == Queued); bad != nil {
				return &damagedRow{boxOut, r.Seq, bad.reason}
			}
			if err := waitOf(ctx, wait, r); err != nil {
				return err
			}
			list = append(list, Waiting{r.Lane(), r.Code, r.Reason, r.Tries, r.NextTry})
			who, lane = short(r.From), r.lane
		}
	})
	return list, err
}

// one gives the only row of a query, nil if there is none.
func one(ctx context.Context, query *sql.Stmt, decode func([]any) (outRow, *damage), box string, args ...any) (found *outRow, err error) {
	rows, err := query.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	err = each(rows, func(row []any) (bool, error) {
		r, bad := decode(row)
		if bad != nil {
			return false, &damagedRow{box, r.Seq, bad.reason}
		}
		found = &r
		return false, nil
	})
	return found, err
}

func waitOf(ctx context.Context, query *sql.Stmt, r *outRow) error {
	rows, err := query.QueryContext(ctx, r.lane)
	if err != nil {
		return err
	}
	return each(rows, func(row []any) (bool, error) { return false, decodeWait(row, &r.Outgoing) })
}

// Head gives the first messages of a lane, in order: at most maxMessages, and
// at most maxBytes of data unless the first alone has more. Expired ones are
// left out. more tells that there are, or may be, others behind them.
func (s *Store) Head(ctx context.Context, l Lane, maxMessages, maxBytes int) (list []Message, more bool, err error) {
	return s.head(ctx, l, maxMessages, maxBytes, s.now(), false)
}

// head is Head at now, which ends before an expired one if that time is doubted.
func (s *Store) head(ctx context.Context, l Lane, maxMessages, maxBytes int, now time.Time, doubted bool) (list []Message, more bool, err error) {
	p := Page{Limit: maxMessages, MaxBytes: maxBytes}
	const query = "SELECT " + outColumns + " FROM outbox INDEXED BY outbox_lane WHERE state = 'queued' AND who = ? AND lane = ? ORDER BY seq"
	err = s.read(ctx, func(rows *sql.Rows) error {
		list, more = nil, false
		size, last := 0, int64(0)
		return each(rows, func(row []any) (bool, error) {
			r, bad := decodeOut(row)
			if bad == nil {
				bad = misplaced(r.State == Queued && r.Seq > last)
			}
			if bad != nil {
				return false, &damagedRow{boxOut, r.Seq, bad.reason}
			}
			last = r.Seq
			switch {
			case r.Lane() != l:
				return true, nil
			case !r.Expires.After(now):
				more = doubted
				return !doubted, nil
			case p.full(len(list), size, len(r.Data)):
				more = true
				return false, nil
			}
			list, size = append(list, r.Message), size+len(r.Data)
			more = len(list) == p.limit()
			return !more, nil
		})
	}, query, short(l.From), l.hash())
	return list, more, err
}

// Outgoing gives one message; CodeNotFound if there is none.
func (s *Store) Outgoing(ctx context.Context, from identity.ID, id string) (Outgoing, error) {
	leave, err := s.looks.enter(ctx, from)
	if err != nil {
		return Outgoing{}, err
	}
	defer leave()
	const query = "SELECT " + outColumns + " FROM outbox WHERE key = ?" // the rest is compared here: see misplaced
	var found *outRow
	err = s.read(ctx, func(rows *sql.Rows) error {
		found = nil
		return each(rows, func(row []any) (bool, error) {
			r, bad := decodeOut(row)
			if bad != nil {
				return false, &damagedRow{boxOut, r.Seq, bad.reason}
			}
			if r.From == from && r.ID == id {
				found = &r
			}
			return false, nil
		})
	}, query, hash(from, id))
	switch {
	case err != nil:
		return Outgoing{}, err
	case found == nil:
		return Outgoing{}, errNotFound(id)
	case found.State != Queued:
		return found.Outgoing, nil
	}
	err = s.read(ctx, func(rows *sql.Rows) error {
		return each(rows, func(row []any) (bool, error) { return false, decodeWait(row, &found.Outgoing) })
	}, "SELECT tries, next_try, code, reason FROM waits WHERE lane = ?", found.lane)
	return found.Outgoing, err
}

// ListOut lists an identity's queued messages, with finalToo the others also.
func (s *Store) ListOut(ctx context.Context, from identity.ID, p Page, finalToo bool) ([]Outgoing, error) {
	var list []Outgoing
	err := s.view(ctx, func(tx *sql.Tx) error {
		queued, cut, err := listOut(ctx, tx, from, p, "outbox_lane", "state = 'queued'")
		if err != nil {
			return err
		}
		// Refused and expired ones are shown as long as they can be sent again.
		index, state := "outbox_kept", "state <> 'queued' AND data IS NOT NULL"
		if finalToo {
			index, state = "outbox_final", "state <> 'queued'"
		}
		final, finalCut, err := listOut(ctx, tx, from, p, index, state)
		if err != nil {
			return err
		}
		list = merge(queued, final, cut, finalCut, p)
		return nil
	})
	return list, err
}

// listOut gives a page of one kind; cut tells that it has no room for the next one.
func listOut(ctx context.Context, tx *sql.Tx, from identity.ID, p Page, index, state string) (list []Outgoing, cut bool, err error) {
	// What is queued lies by lane: first the places are sorted, then the rows are read.
	rows, err := tx.QueryContext(ctx, "SELECT "+outColumns+" FROM outbox WHERE seq IN (SELECT seq FROM outbox INDEXED BY "+index+
		" WHERE who = ? AND seq > ? AND "+state+" ORDER BY seq LIMIT ?) ORDER BY seq", short(from), p.After, p.limit())
	if err != nil {
		return nil, false, err
	}
	size := 0
	err = each(rows, func(row []any) (bool, error) {
		r, bad := decodeOut(row)
		switch {
		case bad != nil:
			return false, &damagedRow{boxOut, r.Seq, bad.reason}
		case p.full(len(list), size, len(r.Data)):
			cut = true
			return false, nil
		}
		list, size = append(list, r.Outgoing), size+len(r.Data)
		return true, nil
	})
	if err != nil {
		return nil, false, err
	}
	wait, err := tx.PrepareContext(ctx, "SELECT tries, next_try, code, reason FROM waits WHERE lane = ?")
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = wait.Close() }()
	for i := range list {
		if list[i].State != Queued {
			continue
		}
		r := outRow{Outgoing: list[i], lane: list[i].Lane().hash()}
		if err := waitOf(ctx, wait, &r); err != nil {
			return nil, false, err
		}
		list[i] = r.Outgoing
	}
	return list, cut, nil
}

// merge puts two lists into one page, by Seq. It ends with a list that was cut:
// what the other one has behind may come behind what was cut off.
func merge(a, b []Outgoing, aCut, bCut bool, p Page) (list []Outgoing) {
	size := 0
	for len(a)+len(b) > 0 && (len(a) > 0 || !aCut) && (len(b) > 0 || !bCut) {
		from := &a
		if len(a) == 0 || len(b) > 0 && b[0].Seq < a[0].Seq {
			from = &b
		}
		o := (*from)[0]
		if p.full(len(list), size, len(o.Data)) {
			break
		}
		list, size = append(list, o), size+len(o.Data)
		*from = (*from)[1:]
	}
	return list
}
