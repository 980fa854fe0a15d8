package messages

import (
	"database/sql"
	"fmt"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	boxOut = "outbox"
	boxIn  = "inbox"

	outColumns = "seq, key, who, lane, sender, receiver, protocol, instance, message_id, size, created, expires, state, code, reason, done, content, digest, data"
	outNoData  = "seq, key, who, lane, sender, receiver, protocol, instance, message_id, size, created, expires, state, code, reason, done, content, digest, NULL"
	inColumns  = "seq, key, peer, who, slot, owner, sender, protocol, instance, message_id, size, created, received, seen, state, content, digest, data"
	inNoData   = "seq, key, peer, who, slot, owner, sender, protocol, instance, message_id, size, created, received, seen, state, content, digest, NULL"

	unread = "unread"
	read   = "read"
	gone   = "gone"
)

// damage is why a row cannot be what was written. It is no error for callers:
// the row is set aside.
type damage struct{ reason string }

func (d *damage) Error() string { return d.reason }

// columns reads a row's values in turn and notes the first that is not of its type.
type columns struct {
	row []any
	bad *damage
}

func next[T any](c *columns, what string) (v T) {
	if len(c.row) == 0 {
		c.note(what)
		return v
	}
	v, ok := c.row[0].(T)
	if !ok {
		c.note(what)
	}
	c.row = c.row[1:]
	return v
}

func (c *columns) note(what string) {
	if c.bad == nil {
		c.bad = &damage{what + " cannot be read"}
	}
}

func (c *columns) id(what string) (id identity.ID) {
	b := next[[]byte](c, what)
	if len(b) != len(id) {
		c.note(what)
		return id
	}
	return identity.ID(b)
}

func (c *columns) digest(what string) (d digest) {
	b := next[[]byte](c, what)
	if len(b) != len(d) {
		c.note(what)
		return d
	}
	return digest(b)
}

func (c *columns) time(what string) time.Time { return time.UnixMicro(next[int64](c, what)) }

// optional gives the zero value for NULL.
func optional[T any](c *columns, what string) (v T) {
	if len(c.row) > 0 && c.row[0] == nil {
		c.row = c.row[1:]
		return v
	}
	return next[T](c, what)
}

// outRow is a row of the outbox.
type outRow struct {
	Outgoing
	lane    int64
	size    int64
	content digest
}

// decodeOut reads a row of outColumns. With damage it gives what could be read.
func decodeOut(row []any) (r outRow, bad *damage) {
	if r, bad = decodeOutColumns(row); bad == nil {
		bad = badData(&r.Message, r.size, r.content, r.State == Queued)
	}
	return r, bad
}

// decodeOutColumns is decodeOut for rows whose data was left out: NULL.
func decodeOutColumns(row []any) (r outRow, bad *damage) {
	c := columns{row: row}
	r.Seq = next[int64](&c, "seq")
	key, who := next[int64](&c, "key"), next[int64](&c, "who")
	r.lane = next[int64](&c, "lane")
	r.From, r.To = c.id("sender"), c.id("receiver")
	r.Protocol, r.Instance, r.ID = next[string](&c, "protocol"), next[string](&c, "instance"), next[string](&c, "message_id")
	r.size = next[int64](&c, "size")
	r.Size = r.size
	r.Created, r.Expires = c.time("created"), c.time("expires")
	state := next[string](&c, "state")
	r.Code, r.Reason = api.Code(next[string](&c, "code")), next[string](&c, "reason")
	if done := optional[int64](&c, "done"); done != 0 {
		r.Done = time.UnixMicro(done)
	}
	r.content = c.digest("content")
	sum := c.digest("digest")
	r.Data = optional[[]byte](&c, "data")
	var known bool
	r.State, known = parseState(state)
	switch {
	case c.bad != nil:
	case !known:
		c.bad = &damage{fmt.Sprintf("its state cannot be %q", state)}
	case key != hash(r.From, r.ID) || who != short(r.From) || r.lane != r.Lane().hash():
		c.bad = &damage{"its place in an index is wrong"}
	case sum != digestOf(boxOut, &r.Message, r.size, r.Expires.UnixMicro(), r.content):
		c.bad = &damage{"its digest is wrong"}
	}
	return r, c.bad
}

// misplaced tells of a row that is not what the index says that led to it.
func misplaced(right bool) *damage {
	if right {
		return nil
	}
	return &damage{"its place in an index is wrong"}
}

// badData checks data, which may be gone unless needed.
func badData(m *Message, size int64, content digest, needed bool) *damage {
	switch {
	case m.Data == nil && needed:
		return &damage{"its data is missing"}
	case m.Data != nil && (int64(len(m.Data)) != size || contentOf(m) != content):
		return &damage{"the digest of its data is wrong"}
	}
	return nil
}

// inRow is a row of the inbox.
type inRow struct {
	Incoming
	state   string
	size    int64
	content digest
}

// decodeIn reads a row of inColumns. With damage it gives what could be read.
func decodeIn(row []any) (r inRow, bad *damage) {
	if r, bad = decodeInColumns(row); bad == nil {
		bad = badData(&r.Message, r.size, r.content, r.state != gone)
	}
	return r, bad
}

// decodeInColumns is decodeIn for rows whose data was left out: NULL.
func decodeInColumns(row []any) (r inRow, bad *damage) {
	c := columns{row: row}
	r.Seq = next[int64](&c, "seq")
	key, peer, who, slot := next[int64](&c, "key"), next[int64](&c, "peer"), next[int64](&c, "who"), next[int64](&c, "slot")
	r.To, r.From = c.id("owner"), c.id("sender")
	r.Protocol, r.Instance, r.ID = next[string](&c, "protocol"), next[string](&c, "instance"), next[string](&c, "message_id")
	r.size = next[int64](&c, "size")
	r.Created, r.Received = c.time("created"), c.time("received")
	optional[int64](&c, "seen")
	r.state = next[string](&c, "state")
	r.Read = r.state == read
	r.content = c.digest("content")
	sum := c.digest("digest")
	r.Data = optional[[]byte](&c, "data")
	switch {
	case c.bad != nil:
	case r.state != unread && r.state != read && r.state != gone:
		c.bad = &damage{fmt.Sprintf("its state cannot be %q", r.state)}
	case key != hash(r.To, r.ID) || peer != short(r.From) || who != short(r.To) || slot != hash(r.To, r.Protocol, r.Instance):
		c.bad = &damage{"its place in an index is wrong"}
	case sum != digestOf(boxIn, &r.Message, r.size, r.Received.UnixMicro(), r.content):
		c.bad = &damage{"its digest is wrong"}
	}
	return r, c.bad
}

// each calls fn with every row of a query; fn may keep the row. It ends when fn
// says so.
func each(rows *sql.Rows, fn func(row []any) (more bool, err error)) error {
	defer func() { _ = rows.Close() }()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	for rows.Next() {
		row, to := make([]any, len(names)), make([]any, len(names))
		for i := range row {
			to[i] = &row[i]
		}
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if more, err := fn(row); err != nil || !more {
			return err
		}
	}
	return rows.Err()
}
