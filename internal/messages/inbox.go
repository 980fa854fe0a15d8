package messages

import (
	"context"
	"runtime"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/service/api"
)

// maxAhead is how far a sender's clock may have been ahead of ours when it
// created a message: an id must not outlive the memory of it.
const maxAhead = 24 * time.Hour

// Take puts messages of one lane into their receiver's inbox, in one commit; an
// answer for each. Errors are CodeConflict (the ID has other content),
// CodeExpired (created longer ago than MaxLife), CodeClockSkew (created more than
// a day in the future), CodeTooLarge, CodeBadRequest: final; CodeOverBudget,
// CodeUnavailable (our clock has jumped), CodeStorage (the disk): to be tried again, and then all that follow and were not
// taken before have the same error, so that order is kept. The caller checked
// that the sender may and what the data means.
func (s *Store) Take(ctx context.Context, ms []Message) []Taken {
	rows := make([]inRow, len(ms))
	now := s.now()
	answers := make([]Taken, len(ms))
	for i, m := range ms {
		if answers[i].Err = valid(&m); answers[i].Err == nil && m.Lane() != ms[0].Lane() {
			answers[i].Err = api.Errorf(api.CodeBadRequest, "messages of several lanes cannot be taken at once")
		}
		m.ID, m.Created = api.CanonicalUUID(m.ID), micro(m.Created)
		rows[i] = inRow{Incoming: Incoming{Message: m, Received: now}, size: int64(len(m.Data)), content: contentOf(&m)}
	}
	var taken []Taken
	err := s.write(ctx, func(tx *sqlite.Tx) (err error) {
		taken, err = s.takeAll(tx, rows, answers)
		return err
	})
	if err == nil {
		return taken
	}
	for i := range answers {
		if answers[i].Err == nil {
			answers[i].Err = err
		}
	}
	return answers
}

// takeAll takes those that are not refused already.
func (s *Store) takeAll(tx *sqlite.Tx, rows []inRow, refused []Taken) ([]Taken, error) {
	taken := append([]Taken(nil), refused...)
	var wait error
	for i := range rows {
		if i%8 == 7 {
			runtime.Gosched() // who waits for something else need not wait for the whole frame
		}
		if taken[i].Err != nil {
			continue
		}
		r := &rows[i]
		refusal := s.mayTake(r)
		if wait != nil {
			refusal = wait
		}
		var err error
		if taken[i], err = s.take(tx, r, refusal); err != nil {
			return nil, err
		}
		switch api.CodeOf(taken[i].Err) {
		case api.CodeOverBudget, api.CodeUnavailable:
			wait = taken[i].Err
		}
	}
	return taken, nil
}

// mayTake refuses what is too old or too much.
func (s *Store) mayTake(r *inRow) error {
	switch age := r.Received.Sub(r.Created); {
	case (age > MaxLife || age < -maxAhead) && s.Jump() != 0:
		return api.Errorf(api.CodeUnavailable, "the receiver's clock has jumped: it does not judge how old message %s is", r.ID).
			WithHint("the message waits until that clock is right, or for an hour")
	case age > MaxLife:
		return api.Errorf(api.CodeExpired, "message %s is older than %d days", r.ID, MaxLife/(24*time.Hour)).
			WithHint("send it as a new message")
	case age < -maxAhead:
		return api.Errorf(api.CodeClockSkew, "message %s comes from the future: it was created %s", r.ID, r.Created.UTC().Format(time.RFC3339)).
			WithHint("set the clock of the sending machine, and send it as a new message")
	}
	if over := s.overUnread(r.To, r.From, r.size); over != nil {
		return over
	}
	return nil
}

// take inserts a message unless it is refused. One that is known is no second
// one, whatever else may be said against it.
func (s *Store) take(tx *sqlite.Tx, r *inRow, refusal error) (Taken, error) {
	if refusal == nil {
		sum := digestOf(boxIn, &r.Message, r.size, r.Received.UnixMicro(), r.content)
		seq, err := tx.Insert(`INSERT INTO inbox
			(key, peer, who, slot, owner, sender, protocol, instance, message_id, size, created, received, state, content, digest, data)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'unread', ?, ?, ?) ON CONFLICT (key, peer) DO NOTHING`,
			hash(r.To, r.ID), short(r.From), short(r.To), hash(r.To, r.Protocol, r.Instance), r.To[:], r.From[:], r.Protocol, r.Instance, r.ID, r.size, r.Created.UnixMicro(), r.Received.UnixMicro(),
			r.content[:], sum[:], []byte(r.Data))
		if err != nil {
			return Taken{}, err
		}
		if seq != 0 {
			s.countIn(r.To, r.From, 1, r.size)
			s.use.add(allStored, identity.ID{}, identity.ID{}, 1, r.size)
			s.use.add(storedOf, r.To, r.From, 1, 0)
			return Taken{Seq: seq, Fresh: true}, nil
		}
	}
	known, err := findIn(tx, r.To, r.From, r.ID)
	switch {
	case err != nil:
		return Taken{}, err
	case known == nil && refusal != nil:
		return Taken{Err: refusal}, nil
	case known == nil || known.content != r.content:
		return Taken{Err: errConflict(r.ID)}, nil
	}
	return Taken{Seq: known.Seq}, nil
}

func (s *Store) countIn(owner, peer identity.ID, messages, bytes int64) {
	s.use.add(unreadOf, owner, peer, messages, bytes)
}

// findIn gives the row of a message without its data, also when it is gone.
func findIn(tx *sqlite.Tx, owner, sender identity.ID, id string) (found *inRow, err error) {
	err = tx.Query(func(row []any) error {
		r, bad := decodeInColumns(row)
		if bad != nil {
			return &damagedRow{boxIn, r.Seq, bad.reason}
		}
		if r.To == owner && r.From == sender && r.ID == id {
			found = &r
		}
		return nil
	}, "SELECT "+inNoData+" FROM inbox WHERE key = ? AND peer = ?", hash(owner, id), short(sender))
	return found, err
}

// MarkRead marks messages as read; those that are not there are ignored.
func (s *Store) MarkRead(ctx context.Context, owner identity.ID, seqs ...int64) error {
	return s.write(ctx, func(tx *sqlite.Tx) error {
		now := s.now().UnixMicro()
		for _, seq := range seqs {
			r, err := inAt(tx, owner, seq)
			if err != nil {
				return err
			}
			if r == nil || r.state != unread {
				continue
			}
			if _, err := tx.Exec("UPDATE inbox SET state = 'read', seen = ? WHERE seq = ?", now, seq); err != nil {
				return err
			}
			s.countIn(owner, r.From, -1, -r.size)
		}
		return nil
	})
}

// Remove removes messages; their ids stay known for Remembered. Those that are
// not there are ignored.
func (s *Store) Remove(ctx context.Context, owner identity.ID, seqs ...int64) error {
	return s.write(ctx, func(tx *sqlite.Tx) error {
		for _, seq := range seqs {
			r, err := inAt(tx, owner, seq)
			if err != nil {
				return err
			}
			if err := s.drop(tx, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// Acknowledge removes a message that a program has taken. Once more is no error.
func (s *Store) Acknowledge(ctx context.Context, owner, sender identity.ID, id string) error {
	return s.write(ctx, func(tx *sqlite.Tx) error {
		r, err := findIn(tx, owner, sender, id)
		if err != nil {
			return err
		}
		return s.drop(tx, r)
	})
}

// drop leaves only the memory of a message. r may be nil.
func (s *Store) drop(tx *sqlite.Tx, r *inRow) error {
	if r == nil || r.state == gone {
		return nil
	}
	if _, err := tx.Exec("UPDATE inbox SET state = 'gone', data = NULL WHERE seq = ?", r.Seq); err != nil {
		return err
	}
	if r.state == unread {
		s.countIn(r.To, r.From, -1, -r.size)
	}
	s.use.add(allStored, identity.ID{}, identity.ID{}, 0, -r.size)
	return nil
}

// inAt gives a row of owner's without its data, nil if there is none.
func inAt(tx *sqlite.Tx, owner identity.ID, seq int64) (found *inRow, err error) {
	err = tx.Query(func(row []any) error {
		r, bad := decodeInColumns(row)
		if bad != nil {
			return &damagedRow{boxIn, r.Seq, bad.reason}
		}
		if r.To == owner {
			found = &r
		}
		return nil
	}, "SELECT "+inNoData+" FROM inbox WHERE seq = ?", seq)
	return found, err
}

// Budgets tells what of its budgets uid uses.
func (s *Store) Budgets(uid uint32) []api.BudgetUse {
	s.mu.RLock()
	u, stored := s.use.queued(uid), s.use.storedBy(uid)
	s.mu.RUnlock()
	l := s.o.Limits()
	return []api.BudgetUse{
		{Budget: "queued messages", Used: u.messages, Limit: l.PerUIDQueuedMessages, Setting: settingQueued},
		{Budget: "bytes of queued messages", Used: u.bytes, Limit: l.PerUIDQueuedBytes, Setting: settingQueuedBytes},
		{Budget: "stored messages", Used: stored, Limit: l.PerUIDStoredMessages, Setting: settingStored},
	}
}

// Unread counts an identity's unread messages.
func (s *Store) Unread(owner identity.ID) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.use.unreadBy(owner)
}
