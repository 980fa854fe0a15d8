package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
)

// copyRecords adds the rows that SQLite could not read, and counts them. A row
// that is there stays as it is; of copies the sure ones come first.
func copyRecords(ctx context.Context, from string, fresh *sql.DB, o Options, tables []TableRecovery) error {
	raw, done, err := openRaw(from)
	if err != nil {
		return nil // what could be read was copied
	}
	defer done()
	return transact(ctx, fresh, false, func(tx *sql.Tx) error {
		for _, wanted := range []bool{true, false} {
			err := raw.rows(func(rowid int64, row []any) error {
				o.Progress.step()
				table, values, sure := o.Salvage(rowid, row)
				i := slices.IndexFunc(tables, func(t TableRecovery) bool { return t.Name == table })
				if sure != wanted || i < 0 || !tables[i].Lost {
					return ctx.Err()
				}
				return copyRecord(ctx, tx, &tables[i], values)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func copyRecord(ctx context.Context, tx *sql.Tx, t *TableRecovery, values []any) error {
	res, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT OR IGNORE INTO %s VALUES (?%s)", quote(t.Name), strings.Repeat(",?", len(values)-1)), values...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	t.Copied += int(n)
	t.Missing = max(0, t.Missing-int(n))
	return err
}
