package messages

import (
	"context"
	"database/sql"
	"strings"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// ListIn lists an identity's inbox.
func (s *Store) ListIn(ctx context.Context, owner identity.ID, p Page, unreadOnly bool) ([]Incoming, error) {
	if unreadOnly && s.Unread(owner) == 0 {
		return nil, nil
	}
	query := "SELECT " + inColumns + " FROM inbox INDEXED BY inbox_list WHERE who = ? AND seq > ? AND state <> 'gone'"
	if unreadOnly {
		query += " AND state = 'unread'"
	}
	return s.listIn(ctx, p, query+" ORDER BY seq LIMIT ?", short(owner), p.After, p.limit())
}

// Waiting lists unread messages of one protocol, for the program that serves it.
func (s *Store) Waiting(ctx context.Context, owner identity.ID, protocol, instance string, p Page) (list []Incoming, err error) {
	leave, err := s.looks.enter(ctx, owner)
	if err != nil {
		return nil, err
	}
	defer leave()
	const query = "SELECT " + inColumns + ` FROM inbox INDEXED BY inbox_unread
		WHERE slot = ? AND seq > ? AND state = 'unread' ORDER BY seq LIMIT ?`
	err = s.read(ctx, func(rows *sql.Rows) (err error) {
		list, err = pageOf(rows, p, unread)
		return err
	}, query, hash(owner, protocol, instance), p.After, p.limit())
	return list, err
}

// countMost bounds what UnreadOf counts.
const countMost = 100_000

// UnreadOf counts an identity's unread messages of one protocol, up to 100,000.
func (s *Store) UnreadOf(ctx context.Context, owner identity.ID, protocol, instance string) (n int64, err error) {
	if s.Unread(owner) == 0 {
		return 0, nil
	}
	leave, err := s.looks.enter(ctx, owner)
	if err != nil {
		return 0, err
	}
	defer leave()
	const query = `SELECT COUNT(*) FROM (SELECT 1 FROM inbox INDEXED BY inbox_unread WHERE slot = ? AND state = 'unread' LIMIT ?)`
	err = s.read(ctx, func(rows *sql.Rows) error {
		return each(rows, func(row []any) (bool, error) {
			n, _ = row[0].(int64)
			return false, nil
		})
	}, query, hash(owner, protocol, instance), countMost)
	return n, err
}

// listIn runs a query that gives rows in the order of seq.
func (s *Store) listIn(ctx context.Context, p Page, query string, args ...any) (list []Incoming, err error) {
	err = s.view(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		list, err = pageOf(rows, p, "")
		return err
	})
	return list, err
}

// pageOf reads rows in the order of seq, all in one state if that is not "".
func pageOf(rows *sql.Rows, p Page, state string) (list []Incoming, err error) {
	size, last := 0, int64(0)
	err = each(rows, func(row []any) (bool, error) {
		r, bad := decodeIn(row)
		if bad == nil {
			bad = misplaced((state == "" || r.state == state) && r.Seq > last)
		}
		switch last = r.Seq; {
		case bad != nil:
			return false, &damagedRow{boxIn, r.Seq, bad.reason}
		case p.full(len(list), size, len(r.Data)):
			return false, nil
		}
		list, size = append(list, r.Incoming), size+len(r.Data)
		return true, nil
	})
	return list, err
}

// Incoming finds a message by its ID, or by "SENDER/ID" where several senders
// used one. Errors: CodeNotFound, CodeConflict which names the senders.
func (s *Store) Incoming(ctx context.Context, owner identity.ID, ref string) (Incoming, error) {
	const query = "SELECT " + inColumns + " FROM inbox WHERE key = ? AND owner = ? AND message_id = ? AND state <> 'gone'"
	// An id may have a slash itself: as it stands it comes first.
	found, err := s.listIn(ctx, Page{}, query+" ORDER BY seq LIMIT 100", hash(owner, ref), owner[:], ref)
	if err != nil {
		return Incoming{}, err
	}
	if text, id, ok := strings.Cut(ref, "/"); ok && len(found) == 0 {
		sender, err := identity.ParseID(text)
		if err != nil {
			return Incoming{}, api.Errorf(api.CodeBadRequest, "in %q: %v", ref, err)
		}
		if found, err = s.listIn(ctx, Page{}, query+" AND sender = ? ORDER BY seq", hash(owner, id), owner[:], id, sender[:]); err != nil {
			return Incoming{}, err
		}
	}
	switch len(found) {
	case 0:
		return Incoming{}, errNotFound(ref)
	case 1:
		return found[0], nil
	}
	var senders []string
	for _, m := range found {
		senders = append(senders, m.From.String())
	}
	return Incoming{}, api.Errorf(api.CodeConflict, "%d senders have used the id %s: %s", len(found), ref, strings.Join(senders, ", ")).
		WithHint(`name its sender, as in "fastn inbox show %s --from %s"`, api.ShellQuote(ref), api.ShellQuote(senders[0]))
}
