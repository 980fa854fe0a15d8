package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strings"
)

// Bounds of the queries for one table. Each halves a stretch of rows in which
// something does not read; as long as nothing has, there is little hope.
const (
	probes     = 4096
	vainProbes = 256
)

// salvage copies one table from a damaged database into a new one.
type salvage struct {
	ctx     context.Context
	old     *sql.DB
	t       TableRecovery
	columns []string // of the new one, the row's number first if it has no name
	insert  *sql.Stmt
	work    *Progress
}

// copyTable copies the rows of one table. Errors are those of the new database;
// what the old one does not give is only noted.
func copyTable(ctx context.Context, old, fresh *sql.DB, table string, work *Progress) (TableRecovery, error) {
	s := salvage{ctx: ctx, old: old, t: TableRecovery{Name: table}, work: work}
	columns, err := tableColumns(ctx, fresh, table)
	if err != nil {
		return s.t, err
	}
	named, err := rowidNamed(ctx, fresh, table)
	if err != nil {
		return s.t, err
	}
	if s.columns = quoted(columns); !named { // a row keeps its place in the order
		s.columns = append([]string{"rowid"}, s.columns...)
	}
	if _, err := column(ctx, old, fmt.Sprintf("SELECT %s FROM %s LIMIT 0", strings.Join(s.columns, ","), quote(table))); err != nil {
		s.t.Lost = true // the table is gone, or a column
		return s.t, ctx.Err()
	}
	rows := "1" // a column called digest may be the tables' owner's
	if triggers, err := column(ctx, fresh, "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name = ?", table+sealSuffix); err != nil {
		return s.t, err
	} else if len(triggers) > 0 {
		rows = intact(table, columns)
	}
	err = transact(ctx, fresh, false, func(tx *sql.Tx) error {
		// What a constraint refuses is a row read twice, or damaged.
		s.insert, err = tx.PrepareContext(ctx, fmt.Sprintf("INSERT OR IGNORE INTO %s (%s) VALUES (?%s)",
			quote(table), strings.Join(s.columns, ","), strings.Repeat(",?", len(s.columns)-1)))
		if err != nil {
			return err
		}
		defer func() { _ = s.insert.Close() }()
		search := search{probes: probes, copied: func() bool { return s.t.Copied > 0 },
			scan: func(lo, hi int64, order string) (*int64, bool, error) { return s.copyRows(lo, hi, rows, order) }}
		whole, err := search.between(math.MinInt64, math.MaxInt64)
		s.t.Lost = s.t.Lost || !whole
		return err
	})
	if err != nil {
		return s.t, err
	}
	if had, ok := rowCount(ctx, old, table); ok && had > s.t.Copied {
		s.t.Missing, s.t.Lost = had-s.t.Copied, true
	}
	return s.t, nil
}

// search comes to every row that can be read of a table that cannot be read whole.
type search struct {
	// scan reads the rows numbered lo to hi in that order, ASC or DESC, up to the
	// first that does not read. See copyRows.
	scan   func(lo, hi int64, order string) (last *int64, whole bool, err error)
	copied func() bool // whether anything was read yet
	probes int         // how often scan may still be called
}

// between reads the rows numbered lo to hi: up to the first that does not read,
// down to the last that does not, and then each half of what lies between. whole
// tells that there was nothing that does not read.
func (s *search) between(lo, hi int64) (whole bool, err error) {
	for first := true; ; first = false {
		last, whole, err := s.scan(lo, hi, "ASC")
		if err != nil || whole {
			return first && whole, err
		}
		if last != nil {
			if *last >= hi { // the next number may not exist
				return false, nil
			}
			lo = *last + 1
		}
		last, whole, err = s.scan(lo, hi, "DESC")
		if err != nil || whole {
			return false, err
		}
		if last != nil {
			if *last <= lo {
				return false, nil
			}
			hi = *last - 1
		}
		s.probes -= 2
		if s.probes <= 0 || !s.copied() && s.probes <= probes-vainProbes || lo >= hi {
			return false, nil
		}
		middle := lo + int64((uint64(hi)-uint64(lo))/2)
		if _, err := s.between(lo, middle); err != nil {
			return false, err
		}
		lo = middle + 1
	}
}

// copyRows tells the number of the last row it came to, nil if there was none,
// and whether all could be read.
func (s *salvage) copyRows(lo, hi int64, intact, order string) (last *int64, whole bool, err error) {
	// NOT INDEXED: a damaged index must not hide a whole table.
	rows, err := s.old.QueryContext(s.ctx, fmt.Sprintf("SELECT rowid, %s, %s FROM %s NOT INDEXED WHERE rowid BETWEEN ? AND ? ORDER BY rowid %s",
		intact, strings.Join(s.columns, ","), quote(s.t.Name), order), lo, hi)
	if err != nil {
		return nil, false, s.ctx.Err() // the first row does not read
	}
	defer func() { _ = rows.Close() }()

	values := make([]any, len(s.columns))
	var (
		number int64
		ok     bool
	)
	targets := []any{&number, &ok}
	for i := range values {
		targets = append(targets, &values[i])
	}
	for rows.Next() {
		s.work.step()
		err := rows.Scan(targets...)
		last = &number
		if err != nil || !ok {
			s.t.Lost = true
			continue
		}
		for i, v := range values {
			if b, ok := v.([]byte); ok && b == nil {
				values[i] = []byte{} // the driver reads an empty blob as nil, and would write that as NULL
			}
		}
		res, err := s.insert.ExecContext(s.ctx, values...)
		if err != nil {
			return last, false, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return last, false, err
		}
		s.t.Copied += int(n)
	}
	return last, rows.Err() == nil, s.ctx.Err()
}

// rowCount asks an index how many rows the table had, for what the table itself
// does not tell; ok is false if none can be read.
func rowCount(ctx context.Context, db *sql.DB, table string) (n int, ok bool) {
	indexes, err := column(ctx, db, "SELECT name FROM pragma_index_list(?) WHERE NOT partial", table)
	if err != nil {
		return 0, false
	}
	for _, i := range indexes {
		first, err := column(ctx, db, "SELECT name FROM pragma_index_info(?) LIMIT 1", i)
		if err != nil || len(first) == 0 {
			continue
		}
		// A plain count reads whatever is the smallest, which may be the table.
		query := fmt.Sprintf("SELECT count(*) FROM (SELECT %[1]s FROM %[2]s INDEXED BY %[3]s ORDER BY %[1]s)", quote(first[0]), quote(table), quote(i))
		if db.QueryRowContext(ctx, query).Scan(&n) == nil {
			return n, true
		}
	}
	return 0, db.QueryRowContext(ctx, "SELECT count(*) FROM "+quote(table)).Scan(&n) == nil && n > 0
}

func tableColumns(ctx context.Context, db *sql.DB, table string) ([]string, error) {
	return column(ctx, db, "SELECT name FROM pragma_table_info(?)", table)
}

// rowidNamed tells whether a column is another name of the row's number.
func rowidNamed(ctx context.Context, db *sql.DB, table string) (bool, error) {
	types, err := column(ctx, db, "SELECT upper(type) FROM pragma_table_info(?) WHERE pk", table)
	return len(types) == 1 && types[0] == "INTEGER", err
}

// column gives the only column of a query's rows.
func column(ctx context.Context, db *sql.DB, query string, args ...any) ([]string, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var list []string
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
