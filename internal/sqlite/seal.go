package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"strings"

	modernc "modernc.org/sqlite"
)

const (
	// digestColumn holds a row's digest in a sealed table.
	digestColumn = "digest"
	// digestFunction is the SQL function that computes it. A program that does
	// not have it can read the database, but cannot write a sealed table.
	digestFunction = "row_digest"
	digestSize     = 16
	// sealSuffix is of the trigger that tells a sealed table.
	sealSuffix = "_seal"
)

// Seal gives the statements of a migration that adds a digest to every row of
// table, present and future: SHA-256, its first 16 bytes, over the table's name
// and the values of columns, which must be all that the table has. What changes
// a row by SQL changes its digest; what changes it otherwise shows. A row that is
// damaged already keeps its wrong digest.
func Seal(table string, columns ...string) string {
	digest := func(prefix string) string {
		list := make([]string, len(columns))
		for i, c := range columns {
			list[i] = prefix + quote(c)
		}
		return fmt.Sprintf("%s(%s,%s)", digestFunction, literal(table), strings.Join(list, ","))
	}
	t, set := quote(table), fmt.Sprintf("UPDATE %s SET %s = ", quote(table), digestColumn)
	return fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s BLOB;\n", t, digestColumn) +
		set + digest("") + ";\n" +
		fmt.Sprintf("CREATE TRIGGER %s AFTER INSERT ON %s BEGIN %s%s WHERE rowid = new.rowid; END;\n",
			quote(table+sealSuffix), t, set, digest("")) +
		fmt.Sprintf("CREATE TRIGGER %s AFTER UPDATE OF %s ON %s WHEN old.%s IS %s BEGIN %s%s WHERE rowid = new.rowid; END;\n",
			quote(table+"_reseal"), strings.Join(quoted(columns), ","), t, digestColumn, digest("old."), set, digest(""))
}

func quoted(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = quote(n)
	}
	return out
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// rowDigest tells two rows apart whose values only look alike: each value is
// hashed with its type and length.
func rowDigest(_ *modernc.FunctionContext, args []driver.Value) (driver.Value, error) {
	h := sha256.New()
	for _, a := range args {
		switch v := a.(type) {
		case nil:
			hashValue(h, 0, nil)
		case int64:
			hashValue(h, 1, binary.BigEndian.AppendUint64(nil, uint64(v)))
		case float64:
			hashValue(h, 2, binary.BigEndian.AppendUint64(nil, math.Float64bits(v)))
		case string:
			hashValue(h, 3, []byte(v))
		case []byte:
			hashValue(h, 4, v)
		default:
			return nil, fmt.Errorf("%s: a value of type %T", digestFunction, a)
		}
	}
	return h.Sum(nil)[:digestSize], nil
}

func hashValue(h hash.Hash, tag byte, value []byte) {
	h.Write(binary.BigEndian.AppendUint64([]byte{tag}, uint64(len(value))))
	h.Write(value)
}

// checkSealed reads every row of the tables.
func checkSealed(ctx context.Context, db *sql.DB, tables []string) error {
	for _, t := range tables {
		columns, err := tableColumns(ctx, db, t)
		if err != nil {
			return err
		}
		var bad int
		query := fmt.Sprintf("SELECT count(*) FROM %s NOT INDEXED WHERE NOT %s", quote(t), intact(t, columns))
		if err := db.QueryRowContext(ctx, query).Scan(&bad); err != nil {
			return err
		}
		if bad > 0 {
			return fmt.Errorf("%w: %d rows of %s are not what was written", ErrDamaged, bad, t)
		}
	}
	return nil
}

// intact is the SQL condition that a row's digest is right; true where there is
// none.
func intact(table string, columns []string) string {
	var rest []string
	sealed := false
	for _, c := range columns {
		if c == digestColumn {
			sealed = true
		} else {
			rest = append(rest, quote(c))
		}
	}
	if !sealed {
		return "1"
	}
	return fmt.Sprintf("(%s IS %s(%s,%s))", digestColumn, digestFunction, literal(table), strings.Join(rest, ","))
}
