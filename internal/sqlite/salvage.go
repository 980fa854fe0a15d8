package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// copyTable copies the rows of one table, from its beginning to the first bad
// page and then from its end. Errors are those of the new database; what the
// old one does not give is only noted.
func copyTable(ctx context.Context, old, fresh *sql.DB, table string) (TableRecovery, error) {
	t := TableRecovery{Name: table}
	columns, err := columnNames(ctx, fresh, table)
	if err != nil {
		return t, err
	}
	err = transact(ctx, fresh, false, func(tx *sql.Tx) error {
		// NOT INDEXED: a damaged index must not hide a whole table.
		whole, err := copyRows(ctx, old, tx, &t, columns, "ASC")
		if err != nil || whole {
			return err
		}
		t.Lost = true
		_, err = copyRows(ctx, old, tx, &t, columns, "DESC")
		return err
	})
	return t, err
}

// copyRows tells whether it came to the end of the table.
func copyRows(ctx context.Context, old *sql.DB, tx *sql.Tx, t *TableRecovery, columns []string, order string) (whole bool, err error) {
	list := strings.Join(columns, ",")
	rows, err := old.QueryContext(ctx,
		fmt.Sprintf("SELECT %s FROM %s NOT INDEXED ORDER BY rowid %s", list, quote(t.Name), order))
	if err != nil {
		return false, nil // the table is gone, or a column
	}
	defer func() { _ = rows.Close() }()

	// What a constraint refuses is a row read twice, or damaged.
	insert, err := tx.PrepareContext(ctx, fmt.Sprintf("INSERT OR IGNORE INTO %s (%s) VALUES (?%s)",
		quote(t.Name), list, strings.Repeat(",?", len(columns)-1)))
	if err != nil {
		return false, err
	}
	defer func() { _ = insert.Close() }()

	values := make([]any, len(columns))
	targets := make([]any, len(columns))
	for i := range values {
		targets[i] = &values[i]
	}
	for rows.Next() {
		if rows.Scan(targets...) != nil {
			t.Lost = true
			continue
		}
		res, err := insert.ExecContext(ctx, values...)
		if err != nil {
			return false, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return false, err
		}
		t.Copied += int(n)
	}
	return rows.Err() == nil, ctx.Err()
}

func columnNames(ctx context.Context, db *sql.DB, table string) ([]string, error) {
	rows, err := db.QueryContext(ctx, "SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var names []string
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		names = append(names, quote(n))
	}
	return names, rows.Err()
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
