package messages

import (
	"context"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/service/api"
)

// expireAtOnce bounds what one transaction expires, as others wait for it.
const expireAtOnce = 500

func errNotFound(id string) *api.Error {
	return api.Errorf(api.CodeNotFound, "you have no message %s", id).WithHint(`"fastn outbox list" and "fastn inbox list" show what there is`)
}

// change finds a message and has fn change it and what the caller gets.
func (s *Store) change(ctx context.Context, from identity.ID, id string, fn func(tx *sqlite.Tx, r *outRow) (refusal, err error)) (Outgoing, error) {
	var got Outgoing
	var refusal error
	err := s.write(ctx, func(tx *sqlite.Tx) error {
		got, refusal = Outgoing{}, nil
		r, err := findOut(tx, from, id)
		if err != nil {
			return err
		}
		if r == nil {
			refusal = errNotFound(id)
			return nil
		}
		if refusal, err = fn(tx, r); refusal == nil {
			got = r.Outgoing
		}
		return err
	})
	if err != nil {
		return Outgoing{}, err
	}
	return got, refusal
}

// errDelivered is the error of what comes too late.
func errDelivered(id string) error {
	return api.Errorf(api.CodeConflict, "message %s is delivered already", id).
		WithHint(`nothing is left to do: "fastn outbox list --all" shows it`)
}

// Cancel ends a queued message, and gives one that was refused or has expired up
// for good; one that is cancelled already stays so. If it was on its way just
// then, it may still arrive, and is Delivered in the end. Errors: CodeNotFound, CodeConflict if it was delivered.
func (s *Store) Cancel(ctx context.Context, from identity.ID, id string) (Outgoing, error) {
	return s.change(ctx, from, id, func(tx *sqlite.Tx, r *outRow) (refusal, err error) {
		queued := int64(0)
		switch r.State {
		case Cancelled:
			return nil, nil
		case Delivered:
			return errDelivered(id), nil
		case Queued:
			queued = 1
		}
		now := s.now()
		if _, err := tx.Exec("UPDATE outbox SET state = 'cancelled', done = ?, data = NULL WHERE seq = ?", now.UnixMicro(), r.Seq); err != nil {
			return nil, err
		}
		kept := r.size
		if r.Data == nil {
			kept = 0
		}
		s.countOut(from, -queued, -kept, 0)
		r.Outgoing = Outgoing{Message: r.Message, State: Cancelled, Done: now, Size: r.size}
		return nil, dropIdleWait(tx, from, r.lane)
	})
}

// Retry makes a refused or expired message queued again, with a new life of
// DefaultLife; a queued one whose life is over too. Of any other queued one the lane
// is due now. It keeps its ID and Created, so that it
// arrives once even if the first try did; so its life ends MaxLife after
// Created at the latest. Errors: CodeNotFound, CodeConflict if it was delivered
// or cancelled, CodeExpired if it is too old or its data was dropped,
// CodeOverBudget.
func (s *Store) Retry(ctx context.Context, from identity.ID, id string) (Outgoing, error) {
	return s.change(ctx, from, id, func(tx *sqlite.Tx, r *outRow) (refusal, err error) {
		switch r.State {
		case Delivered:
			return errDelivered(id), nil
		case Cancelled:
			return api.Errorf(api.CodeConflict, "message %s is cancelled", id).WithHint("send it as a new message"), nil
		case Queued:
			if !r.Expires.After(s.now()) {
				break // to be found expired at the next look
			}
			r.Tries, r.NextTry, r.Code, r.Reason = 0, time.Time{}, "", ""
			_, err := tx.Exec("DELETE FROM waits WHERE lane = ?", r.lane)
			return nil, err
		}
		return s.requeue(tx, r)
	})
}

func (s *Store) requeue(tx *sqlite.Tx, r *outRow) (refusal, err error) {
	now := s.now()
	last := r.Created.Add(MaxLife)
	switch {
	case r.Data == nil && last.After(now):
		return api.Errorf(api.CodeExpired, "what message %s said was dropped to make room for others", r.ID).WithHint("send it as a new message"), nil
	case !last.After(now):
		return api.Errorf(api.CodeExpired, "message %s is too old to be sent again", r.ID).WithHint("send it as a new message"), nil
	}
	uid, ok := s.o.Owner(r.From)
	if !ok {
		return errNotFound(r.ID), nil
	}
	counted := r.State == Queued
	if over, _ := s.overQueued(uid, 0); over != nil && !counted { // its bytes are counted still
		return over, nil
	}
	r.Outgoing = Outgoing{Message: r.Message, State: Queued, Size: r.size}
	if r.Expires = now.Add(DefaultLife); r.Expires.After(last) {
		r.Expires = last
	}
	sum := digestOf(boxOut, &r.Message, r.size, r.Expires.UnixMicro(), r.content)
	if _, err := tx.Exec("UPDATE outbox SET state = 'queued', code = '', reason = '', done = NULL, expires = ?, digest = ? WHERE seq = ?",
		r.Expires.UnixMicro(), sum[:], r.Seq); err != nil {
		return nil, err
	}
	if !counted {
		s.countOut(r.From, 1, 0, 0)
	}
	_, err = tx.Exec("DELETE FROM waits WHERE lane = ?", r.lane)
	return nil, err
}

// Expire ends the messages whose life is over, and gives them without data. It
// may give some with an error. It does nothing while the clock is doubted; see Jump.
func (s *Store) Expire(ctx context.Context) ([]Outgoing, error) {
	now, believed := s.clock()
	if !believed {
		return nil, nil
	}
	var all []Outgoing
	for {
		var some []Outgoing
		err := s.write(ctx, func(tx *sqlite.Tx) (err error) {
			some, err = s.expire(tx, now)
			return err
		})
		if err != nil {
			return all, err
		}
		if all = append(all, some...); len(some) < expireAtOnce {
			return all, nil
		}
	}
}

func (s *Store) expire(tx *sqlite.Tx, now time.Time) (expired []Outgoing, err error) {
	lanes := map[int64]identity.ID{}
	err = tx.Query(func(row []any) error {
		r, damaged := decodeOutColumns(row)
		if damaged != nil {
			return &damagedRow{boxOut, r.Seq, damaged.reason}
		}
		if r.State != Queued {
			return &damagedRow{boxOut, r.Seq, "it is not queued"}
		}
		lanes[r.lane] = r.From
		r.State, r.Done = Expired, r.Expires // not when it was noticed
		expired = append(expired, r.Outgoing)
		return nil
	}, "SELECT "+outNoData+" FROM outbox INDEXED BY outbox_expires WHERE state = 'queued' AND expires <= ? ORDER BY expires LIMIT ?",
		now.UnixMicro(), int64(expireAtOnce))
	if err != nil {
		return nil, err
	}
	for i := range expired {
		o := &expired[i]
		// The reason it waited for so long is what the sender wants to know.
		if err := tx.Query(func(row []any) error { return decodeWait(row, o) },
			"SELECT tries, next_try, code, reason FROM waits WHERE lane = ?", o.Lane().hash()); err != nil {
			return nil, err
		}
		if o.NextTry = (time.Time{}); o.Reason == "" {
			o.Code, o.Reason = api.CodeExpired, "its time was over before it was sent"
		}
		if _, err := tx.Exec("UPDATE outbox SET state = 'expired', done = ?, code = ?, reason = ? WHERE seq = ?",
			o.Done.UnixMicro(), string(o.Code), o.Reason, o.Seq); err != nil {
			return nil, err
		}
		s.countOut(o.From, -1, 0, 0)
	}
	for lane, sender := range lanes {
		if err := dropIdleWait(tx, sender, lane); err != nil {
			return nil, err
		}
	}
	return expired, nil
}

// dropMost bounds the messages of which one new one has the data dropped.
const dropMost = 10_000

// dropKept drops the data of uid's messages that failed, the oldest of from's first,
// until need bytes are free: it is kept for Retry only, and new ones need the room.
// It drops nothing if that would not be enough.
func (s *Store) dropKept(tx *sqlite.Tx, uid uint32, from identity.ID, need int64) error {
	type kept struct {
		seq, size int64
		from      identity.ID
	}
	var drop []kept
	for _, own := range s.use.sendersOf(uid, from) {
		err := tx.Query(func(row []any) error {
			c := columns{row: row}
			k := kept{next[int64](&c, "seq"), next[int64](&c, "size"), own}
			if need > 0 && c.bad == nil {
				drop, need = append(drop, k), need-k.size
			}
			return nil
		}, `SELECT seq, size FROM outbox INDEXED BY outbox_kept WHERE who = ?1 AND +who = ?1 AND state <> 'queued' AND +state <> 'queued' AND data IS NOT NULL
			ORDER BY seq LIMIT ?2`, short(own), int64(dropMost-len(drop)))
		if err != nil {
			return err
		}
		if need <= 0 || len(drop) >= dropMost {
			break
		}
	}
	if need > 0 {
		return nil
	}
	for _, k := range drop {
		if _, err := tx.Exec("UPDATE outbox SET data = NULL WHERE seq = ?", k.seq); err != nil {
			return err
		}
		s.countOut(k.from, 0, -k.size, 0)
	}
	return nil
}
