package sqlite

import (
	"context"
	stdsql "database/sql/driver"
	"errors"
	"fmt"
	"io"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// Tx is a transaction of a Batch. Statements are prepared once and kept, so
// their texts must be constants. Values are int64, string, []byte and nil.
type Tx struct {
	stmts *statements
	fatal error // after it SQLite may have undone the whole transaction
}

// Exec runs a statement and tells how many rows it changed.
func (tx *Tx) Exec(query string, args ...any) (changed int64, err error) {
	s, err := tx.prepare(query)
	if err != nil {
		return 0, err
	}
	r, err := s.(stdsql.StmtExecContext).ExecContext(context.Background(), named(args))
	if err != nil {
		return 0, tx.failed(err)
	}
	return r.RowsAffected()
}

// Insert is Exec that tells the rowid of the row it inserted, 0 if it did not.
func (tx *Tx) Insert(query string, args ...any) (rowid int64, err error) {
	s, err := tx.prepare(query)
	if err != nil {
		return 0, err
	}
	r, err := s.(stdsql.StmtExecContext).ExecContext(context.Background(), named(args))
	if err != nil {
		return 0, tx.failed(err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return 0, err
	}
	return r.LastInsertId()
}

// Query calls each with every row, which is valid during the call only.
func (tx *Tx) Query(each func(row []any) error, query string, args ...any) error {
	s, err := tx.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.(stdsql.StmtQueryContext).QueryContext(context.Background(), named(args))
	if err != nil {
		return tx.failed(err)
	}
	defer func() { _ = rows.Close() }()
	values := make([]stdsql.Value, len(rows.Columns()))
	row := make([]any, len(values))
	for {
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return tx.failed(err)
		}
		for i, v := range values {
			row[i] = v
		}
		if err := each(row); err != nil {
			return err
		}
	}
}

// Int runs a query that gives one integer.
func (tx *Tx) Int(query string, args ...any) (n int64, err error) {
	err = tx.Query(func(row []any) error { n, _ = row[0].(int64); return nil }, query, args...)
	return n, err
}

func named(args []any) []stdsql.NamedValue {
	values := make([]stdsql.NamedValue, len(args))
	for i, a := range args {
		values[i] = stdsql.NamedValue{Ordinal: i + 1, Value: a}
	}
	return values
}

func (tx *Tx) prepare(query string) (stdsql.Stmt, error) {
	s, err := tx.stmts.get(query)
	if err != nil {
		return nil, tx.failed(err)
	}
	return s, nil
}

// failed notes errors that are not the statement's own fault. SQLite undoes the
// whole transaction on some of them, what was done after would then stand alone.
func (tx *Tx) failed(err error) error {
	err = classify(err)
	if e, ok := errors.AsType[*driver.Error](err); ok {
		switch e.Code() & 0xff {
		case lib.SQLITE_CONSTRAINT, lib.SQLITE_ERROR, lib.SQLITE_MISMATCH, lib.SQLITE_RANGE, lib.SQLITE_TOOBIG:
			return err
		}
	}
	if tx.fatal == nil {
		tx.fatal = err
	}
	return err
}

// rollback undoes what there is to undo: perhaps SQLite did it itself.
func (tx *Tx) rollback() {
	if s, err := tx.stmts.get("ROLLBACK"); err == nil {
		_, _ = s.(stdsql.StmtExecContext).ExecContext(context.Background(), nil)
	}
}

// statements are those prepared on one connection.
type statements struct {
	conn   stdsql.ConnPrepareContext
	byText map[string]stdsql.Stmt
}

// use makes sure that statements are those of conn. Those of a connection that
// the pool dropped went with it.
func (s *statements) use(conn any) error {
	c, ok := conn.(stdsql.ConnPrepareContext)
	if !ok {
		return fmt.Errorf("the driver's connection is a %T", conn)
	}
	if s.conn != c {
		s.conn, s.byText = c, make(map[string]stdsql.Stmt)
	}
	return nil
}

func (s *statements) get(query string) (stdsql.Stmt, error) {
	if st, ok := s.byText[query]; ok {
		return st, nil
	}
	st, err := s.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	s.byText[query] = st
	return st, nil
}

// close closes the statements, if they are those of conn.
func (s *statements) close(conn any) error {
	var errs []error
	if c, ok := conn.(stdsql.ConnPrepareContext); ok && c == s.conn {
		for _, st := range s.byText {
			errs = append(errs, st.Close())
		}
	}
	s.conn, s.byText = nil, nil
	return errors.Join(errs...)
}
