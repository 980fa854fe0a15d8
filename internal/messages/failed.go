package messages

import (
	"context"
	"database/sql"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// Failed counts, up to most, an identity's messages that were refused or expired
// and are kept to be sent again.
func (s *Store) Failed(ctx context.Context, from identity.ID, most int64) (n int64, err error) {
	leave, err := s.looks.enter(ctx, from)
	if err != nil {
		return 0, err
	}
	defer leave()
	const query = `SELECT COUNT(*) FROM (SELECT 1 FROM outbox INDEXED BY outbox_kept
		WHERE who = ? AND state <> 'queued' AND data IS NOT NULL LIMIT ?)`
	err = s.read(ctx, func(rows *sql.Rows) error {
		return each(rows, func(row []any) (bool, error) {
			n, _ = row[0].(int64)
			return false, nil
		})
	}, query, short(from), most)
	return n, err
}
