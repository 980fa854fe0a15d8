package messages

import (
	"context"
	"errors"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/service/api"
)

// Put queues m. Seq is ignored; Created is now if zero, Expires Created plus
// DefaultLife if zero. The same ID with the same receiver, protocol, instance
// and data as before is no second message: the answer is what is known of the
// first. Errors: CodeConflict if the ID has other content, CodeBadRequest for a
// life that is over or longer than MaxLife, CodeNotFound if From is nobody's on
// this machine, CodeOverBudget, those of Options.MaySend.
func (s *Store) Put(ctx context.Context, m Message) (Outgoing, error) {
	if err := s.complete(&m); err != nil {
		return Outgoing{}, err
	}
	uid, ok := s.o.Owner(m.From)
	if !ok {
		return Outgoing{}, api.Errorf(api.CodeNotFound, "the identity %s is not on this machine", m.From.Short())
	}
	r := newOutRow(m)
	barred := api.AsError(s.o.MaySend(m.From, m.To))
	var got Outgoing
	var refusal error // found before anything was written
	placed, hasPlace := router.Placed(ctx)
	var damaged error
	err := s.sorted(ctx, func(h handle) error {
		if hasPlace && errors.Is(damaged, sqlite.ErrDamaged) {
			return errRepaired // others may be behind it: it would come after them
		}
		damaged = h.batch.DoPlaced(ctx, placed, func(tx *sqlite.Tx) (err error) {
			got, refusal, err = s.put(tx, r, uid, barred)
			return err
		})
		return damaged
	})
	if err != nil {
		return Outgoing{}, err
	}
	return got, refusal
}

var errRepaired = api.Errorf(api.CodeStorage, "the message store was found damaged, and repaired: this message was not stored").
	WithHint("send it again")

// complete fills in and checks what the caller gave.
func (s *Store) complete(m *Message) error {
	if err := valid(m); err != nil {
		return err
	}
	m.ID = api.CanonicalUUID(m.ID)
	now := s.now()
	if m.Created.IsZero() {
		m.Created = now
	}
	m.Created = micro(m.Created)
	if m.Expires.IsZero() {
		m.Expires = m.Created.Add(DefaultLife)
	}
	m.Expires = micro(m.Expires)
	switch {
	case m.Expires.Sub(m.Created) > MaxLife:
		return api.Errorf(api.CodeBadRequest, "a message lives at most %d days (%v), not %v", MaxLife/(24*time.Hour), MaxLife, m.Expires.Sub(m.Created))
	case !m.Expires.After(now):
		return api.Errorf(api.CodeBadRequest, "the message would expire before it is sent")
	}
	return nil
}

func newOutRow(m Message) outRow {
	r := outRow{Outgoing: Outgoing{Message: m, State: Queued, Size: int64(len(m.Data))}, size: int64(len(m.Data))}
	r.lane, r.content = m.Lane().hash(), contentOf(&m)
	return r
}

// put queues r, unless barred tells why its sender may not.
func (s *Store) put(tx *sqlite.Tx, r outRow, uid uint32, barred *api.Error) (Outgoing, error, error) {
	over, need := barred, int64(0)
	if over == nil {
		over, need = s.overQueued(uid, r.size)
	}
	if need > 0 {
		if err := s.dropKept(tx, uid, r.From, need); err != nil {
			return Outgoing{}, nil, err
		}
		over, _ = s.overQueued(uid, r.size)
	}
	if over == nil {
		over = s.overStored(uid)
	}
	if over == nil {
		seq, err := insertOut(tx, &r)
		if err != nil {
			return Outgoing{}, nil, err
		}
		if seq != 0 {
			r.Seq = seq
			s.countOut(r.From, 1, r.size, 1)
			s.fresh = append(s.fresh, r.Message)
			return r.Outgoing, nil, nil
		}
	}
	// A retry is answered also when nothing more is accepted.
	known, err := findOut(tx, r.From, r.ID)
	switch {
	case err != nil:
		return Outgoing{}, nil, err
	case known == nil && over != nil:
		return Outgoing{}, over, nil
	case known == nil || known.content != r.content:
		return Outgoing{}, errConflict(r.ID), nil
	}
	return known.Outgoing, nil, nil
}

func errConflict(id string) *api.Error {
	return api.Errorf(api.CodeConflict, "message %s was sent before, to another receiver or with other content", id).
		WithHint("give each message an id of its own")
}

// countOut counts within a transaction: messages that are queued, bytes kept, rows.
func (s *Store) countOut(from identity.ID, messages, bytes, rows int64) {
	s.use.add(queuedBy, from, identity.ID{}, messages, bytes)
	s.use.add(allStored, identity.ID{}, identity.ID{}, rows, bytes)
	if rows != 0 {
		s.use.add(storedOf, from, identity.ID{}, rows, 0)
	}
}

func insertOut(tx *sqlite.Tx, r *outRow) (seq int64, err error) {
	sum := digestOf(boxOut, &r.Message, r.size, r.Expires.UnixMicro(), r.content)
	return tx.Insert(`INSERT INTO outbox
		(key, who, lane, sender, receiver, protocol, instance, message_id, size, created, expires, state, code, reason, content, digest, data)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', '', '', ?, ?, ?) ON CONFLICT (key) DO NOTHING`,
		hash(r.From, r.ID), short(r.From), r.lane, r.From[:], r.To[:], r.Protocol, r.Instance, r.ID, r.size, r.Created.UnixMicro(), r.Expires.UnixMicro(),
		r.content[:], sum[:], []byte(r.Data))
}

// findOut gives a message as it is now, nil if there is none. One that is
// damaged is set aside: it is as if there was none.
func findOut(tx *sqlite.Tx, from identity.ID, id string) (found *outRow, err error) {
	var bad *damage
	err = tx.Query(func(row []any) error {
		r, damaged := decodeOut(row)
		found, bad = &r, damaged
		return nil
	}, "SELECT "+outColumns+" FROM outbox WHERE key = ?", hash(from, id))
	if err != nil || found == nil {
		return nil, err
	}
	if bad != nil {
		return nil, &damagedRow{boxOut, found.Seq, bad.reason}
	}
	if found.From != from || found.ID != id {
		return nil, nil // another one of the same hash
	}
	if found.State != Queued {
		return found, nil
	}
	return found, tx.Query(func(row []any) error { return decodeWait(row, &found.Outgoing) },
		"SELECT tries, next_try, code, reason FROM waits WHERE lane = ?", found.lane)
}

func decodeWait(row []any, o *Outgoing) error {
	c := columns{row: row}
	tries, nextTry := next[int64](&c, "tries"), next[int64](&c, "next_try")
	code, reason := next[string](&c, "code"), next[string](&c, "reason")
	if c.bad != nil {
		return nil // it is tried at once, which makes it right again
	}
	o.Tries, o.Code, o.Reason = int(tries), api.Code(code), reason
	if nextTry != 0 {
		o.NextTry = time.UnixMicro(nextTry)
	}
	return nil
}

// Settle records what became of messages of a lane, and why the rest waits, in
// one commit. A nil wait means that nothing keeps the lane from being tried.
// Outcomes of messages that are not queued any more are ignored.
func (s *Store) Settle(ctx context.Context, l Lane, outcomes []Outcome, wait *Wait) error {
	return s.write(ctx, s.settling(l, outcomes, wait))
}

// SettleAll is Settle of several lanes in one commit, of which the batches were
// delivered and nothing waits.
func (s *Store) SettleAll(ctx context.Context, list []settled) error {
	return s.write(ctx, func(tx *sqlite.Tx) error {
		for _, t := range list {
			if err := s.settling(t.lane, t.outcomes, nil)(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) settling(l Lane, outcomes []Outcome, wait *Wait) func(tx *sqlite.Tx) error {
	lane := l.hash()
	return func(tx *sqlite.Tx) error {
		progress := false
		for _, o := range outcomes {
			if o.State != Delivered && o.State != Refused {
				return api.Errorf(api.CodeBadRequest, "a message cannot be settled as %v", o.State)
			}
			progress = progress || o.State == Delivered
			if err := s.settle(tx, l.From, lane, o); err != nil {
				return err
			}
		}
		if wait == nil || progress {
			if _, err := tx.Exec("DELETE FROM waits WHERE lane = ?", lane); err != nil {
				return err
			}
		}
		if wait == nil {
			return nil
		}
		if _, err := tx.Exec(`INSERT INTO waits (lane, tries, next_try, code, reason) VALUES (?, 1, ?, ?, ?)
			ON CONFLICT (lane) DO UPDATE SET tries = tries + 1, next_try = excluded.next_try, code = excluded.code, reason = excluded.reason`,
			lane, micros(wait.NextTry), string(wait.Code), wait.Reason); err != nil {
			return err
		}
		return dropIdleWait(tx, l.From, lane)
	}
}

// settle ends one message. A delivered one's data is not needed again.
func (s *Store) settle(tx *sqlite.Tx, from identity.ID, lane int64, o Outcome) error {
	const (
		deliver = "UPDATE outbox SET state = 'delivered', done = ?, data = NULL WHERE seq = ? AND lane = ? AND key = ? AND state = 'queued' RETURNING size"
		refuse  = "UPDATE outbox SET state = 'refused', done = ?, code = ?, reason = ? WHERE seq = ? AND lane = ? AND key = ? AND state = 'queued' RETURNING size"
	)
	now := s.now().UnixMicro()
	if o.State == Delivered {
		known := false
		err := tx.Query(func(row []any) error {
			size, _ := row[0].(int64)
			s.countOut(from, -1, -size, 0)
			known = true
			return nil
		}, deliver, now, o.Seq, lane, hash(from, o.ID))
		if err != nil || known {
			return err
		}
		return s.settleLate(tx, from, lane, o)
	}
	return tx.Query(func([]any) error {
		s.countOut(from, -1, 0, 0)
		return nil
	}, refuse, now, string(o.Code), o.Reason, o.Seq, lane, hash(from, o.ID))
}

// settleLate notes that a message arrived that was cancelled, or expired, on its way.
func (s *Store) settleLate(tx *sqlite.Tx, from identity.ID, lane int64, o Outcome) error {
	late := false
	err := tx.Query(func(row []any) error {
		kept, _ := row[0].(int64)
		s.countOut(from, 0, -kept, 0)
		late = true
		return nil
	}, `SELECT CASE WHEN data IS NULL THEN 0 ELSE size END FROM outbox
		WHERE seq = ? AND lane = ? AND key = ? AND state IN ('cancelled', 'expired')`, o.Seq, lane, hash(from, o.ID))
	if err != nil || !late {
		return err
	}
	_, err = tx.Exec("UPDATE outbox SET state = 'delivered', done = ?, code = '', reason = '', data = NULL WHERE seq = ?", s.now().UnixMicro(), o.Seq)
	return err
}

// micros is 0 for the zero time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// dropIdleWait forgets why a lane waits that has nothing queued: what is queued
// next has not been tried yet.
func dropIdleWait(tx *sqlite.Tx, sender identity.ID, lane int64) error {
	_, err := tx.Exec("DELETE FROM waits WHERE lane = ? AND NOT EXISTS (SELECT 1 FROM outbox WHERE state = 'queued' AND who = ? AND lane = ?)",
		lane, short(sender), lane)
	return err
}
