package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// sequenceMost bounds what a table's numbers are raised to: above it they would
// soon not be whole numbers in every reader of JSON.
const sequenceMost = 1 << 52

// raiseSequences has tables with AUTOINCREMENT number their next rows by the µs
// since 1970, unless they are beyond: above any number that was ever given, also
// to rows that a damaged file or an older copy of it does not know of. Somebody may
// remember those numbers, or have read all up to them.
func raiseSequences(ctx context.Context, db *sql.DB) error {
	tables, err := column(ctx, db, "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'")
	if err != nil {
		return err
	}
	for _, t := range tables {
		if err := raiseSequence(ctx, db, t, time.Now().UnixMicro()); err != nil {
			return err
		}
	}
	return nil
}

func raiseSequence(ctx context.Context, db *sql.DB, table string, to int64) error {
	to = max(0, min(to, sequenceMost))
	return transact(ctx, db, false, func(tx *sql.Tx) error {
		_, insert := tx.ExecContext(ctx, `INSERT INTO sqlite_sequence (name, seq) SELECT name, 0 FROM sqlite_schema
			WHERE type = 'table' AND name = ?1 AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)`, table)
		_, raise := tx.ExecContext(ctx, "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", to, table)
		return errors.Join(insert, raise)
	})
}

// carrySequences takes over what old knows of the last numbers, as far as that can
// be read.
func carrySequences(ctx context.Context, old, fresh *sql.DB) error {
	names, err := column(ctx, old, "SELECT name FROM sqlite_sequence")
	if err != nil {
		return ctx.Err()
	}
	has, err := column(ctx, fresh, "SELECT name FROM sqlite_schema WHERE name = 'sqlite_sequence'")
	if err != nil || len(has) == 0 {
		return err
	}
	for _, name := range names {
		var last int64
		if old.QueryRowContext(ctx, "SELECT seq FROM sqlite_sequence WHERE name = ?", name).Scan(&last) != nil || last > sequenceMost {
			continue
		}
		if err := raiseSequence(ctx, fresh, name, last); err != nil {
			return err
		}
	}
	return nil
}
