package sqlite

import (
	"context"
	"database/sql"
	"fmt"
)

// Migration is one step of the schema. Its number is its place in the list,
// from 1; the database keeps the number of its last one in user_version. A
// migration that was released never changes.
type Migration struct {
	Name string // for errors
	SQL  string // statements, separated by ';'
}

// migrate runs what is missing, each step in a transaction of its own, and
// refuses a database that knows more steps than we.
func migrate(ctx context.Context, db *sql.DB, steps []Migration) error {
	version, err := schemaVersion(ctx, db)
	if err != nil {
		return err
	}
	if version > len(steps) {
		return newerSchema(version, len(steps))
	}
	for i := version; i < len(steps); i++ {
		if err := migrateStep(ctx, db, i+1, steps[i]); err != nil {
			return fmt.Errorf("migration %d (%s): %w", i+1, steps[i].Name, err)
		}
	}
	return nil
}

func newerSchema(version, known int) error {
	return fmt.Errorf("%w: it is at %d, this program knows up to %d", ErrNewer, version, known)
}

func schemaVersion(ctx context.Context, db *sql.DB) (int, error) {
	var version int
	err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
	if err == nil && version < 0 { // one flipped bit of the first page
		err = fmt.Errorf("%w: it is at schema %d", ErrDamaged, version)
	}
	return version, err
}

func migrateStep(ctx context.Context, db *sql.DB, number int, m Migration) error {
	return transact(ctx, db, false, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, m.SQL); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version=%d", number))
		return err
	})
}
