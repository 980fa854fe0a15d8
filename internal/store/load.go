package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/sqlite"
)

// load reads the whole database.
func load(ctx context.Context, db *sqlite.DB) (*state, error) {
	st := newState()
	err := db.View(ctx, func(tx *sql.Tx) error {
		l := loader{ctx: ctx, tx: tx, st: st}
		l.identities()
		l.contacts()
		l.blocks()
		l.grants()
		l.invites()
		l.delegations()
		l.seen()
		l.hints()
		l.addresses()
		l.meta()
		return l.err
	})
	return st, err
}

// loader keeps the first error; after one it does nothing.
type loader struct {
	ctx context.Context
	tx  *sql.Tx
	st  *state
	err error
}

// each calls fn for each row, with a function that scans it.
func (l *loader) each(query string, fn func(scan func(...any))) {
	if l.err != nil {
		return
	}
	rows, err := l.tx.QueryContext(l.ctx, query)
	if err != nil {
		l.err = err
		return
	}
	defer func() { _ = rows.Close() }()
	scan := func(dst ...any) {
		if err := rows.Scan(dst...); err != nil && l.err == nil {
			l.err = err
		}
	}
	for l.err == nil && rows.Next() {
		fn(scan)
	}
	if err := rows.Err(); err != nil && l.err == nil {
		l.err = err
	}
}

func (l *loader) identities() {
	l.each("SELECT id, uid, name, online, added FROM identities", func(scan func(...any)) {
		var (
			i     Identity
			id    []byte
			added int64
		)
		scan(&id, &i.UID, &i.Name, &i.Online, &added)
		i.ID, i.Added = toID(id), time.UnixMicro(added)
		l.st.putIdentity(i)
	})
}

func (l *loader) contacts() {
	l.each("SELECT owner, id, name, added FROM contacts", func(scan func(...any)) {
		var (
			c         Contact
			owner, id []byte
			added     int64
		)
		scan(&owner, &id, &c.Name, &added)
		c.Owner, c.ID, c.Added = toID(owner), toID(id), time.UnixMicro(added)
		l.st.putContact(c)
	})
}

func (l *loader) blocks() {
	l.each("SELECT owner, id, added FROM blocks", func(scan func(...any)) {
		var (
			owner, id []byte
			added     int64
		)
		scan(&owner, &id, &added)
		l.st.putBlock(toID(owner), toID(id), time.UnixMicro(added))
	})
}

func (l *loader) grants() {
	l.each("SELECT owner, who, protocol, instance, added FROM grants", func(scan func(...any)) {
		var (
			k          grantKey
			owner, who []byte
			added      int64
		)
		scan(&owner, &who, &k.protocol, &k.instance, &added)
		k.who = whoOf(who)
		if k.who != (Who{}) {
			l.st.make(toID(owner)).grants[k] = time.UnixMicro(added)
		}
	})
}

func (l *loader) invites() {
	l.each("SELECT hash, owner, name, expires, used_by, void FROM invites", func(scan func(...any)) {
		var (
			inv                 invite
			hash, owner, usedBy []byte
			expires             int64
		)
		scan(&hash, &owner, &inv.name, &expires, &usedBy, &inv.void)
		inv.expires, inv.usedBy = time.UnixMicro(expires), toID(usedBy)
		l.st.make(toID(owner)).invites[toID(hash)] = &inv
	})
}

func (l *loader) delegations() {
	l.each("SELECT identity, node, issued, expires, raw FROM delegations", func(scan func(...any)) {
		var (
			d               identity.Delegation
			id, node        []byte
			issued, expires int64
		)
		scan(&id, &node, &issued, &expires, &d.Raw)
		d.Identity, d.Node = toID(id), toID(node)
		d.Issued, d.Expires = time.UnixMicro(issued), time.UnixMicro(expires)
		l.st.putDelegation(&d)
	})
}

// seen comes after contacts and delegations.
func (l *loader) seen() {
	l.each("SELECT owner, id, node FROM seen", func(scan func(...any)) {
		var owner, id, node []byte
		scan(&owner, &id, &node)
		l.st.putSeen(toID(owner), toID(id), toID(node))
	})
}

func (l *loader) hints() {
	l.each("SELECT owner, id, node, address FROM hints ORDER BY added", func(scan func(...any)) {
		var (
			h               hint
			owner, id, node []byte
		)
		scan(&owner, &id, &node, &h.address)
		h.node = toID(node)
		l.st.putHint(toID(owner), toID(id), h)
	})
}

func (l *loader) addresses() {
	l.each("SELECT node, address FROM addresses ORDER BY node, position", func(scan func(...any)) {
		var (
			node    []byte
			address string
		)
		scan(&node, &address)
		id := toID(node)
		l.st.addresses[id] = append(l.st.addresses[id], address)
	})
}

func (l *loader) meta() {
	l.each("SELECT key, value FROM meta", func(scan func(...any)) {
		var key, value string
		scan(&key, &value)
		l.st.meta[key] = value
	})
}

// toID takes 32 bytes, as the schema has them; NULL and, before an error is
// noticed, anything else gives the zero ID.
func toID(b []byte) identity.ID {
	if len(b) != len(identity.ID{}) {
		return identity.ID{}
	}
	return identity.ID(b)
}
