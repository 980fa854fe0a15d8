package store

import "github.com/fastn-stack/fastnd/internal/sqlite"

// migrations make the schema. Times are µs since 1970, ids and keys 32 bytes.
// Tables have rowids, so that a damaged file can be read from both ends.
func migrations() []sqlite.Migration {
	return []sqlite.Migration{{Name: "identities, contacts, access, nodes", SQL: `
CREATE TABLE identities (
	id     BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 32),
	uid    INTEGER NOT NULL,
	name   TEXT NOT NULL,
	online INTEGER NOT NULL,
	added  INTEGER NOT NULL,
	UNIQUE (uid, name)
);
CREATE TABLE contacts (
	owner BLOB NOT NULL CHECK (length(owner) = 32),
	id    BLOB NOT NULL CHECK (length(id) = 32),
	name  TEXT NOT NULL,
	added INTEGER NOT NULL,
	PRIMARY KEY (owner, id),
	UNIQUE (owner, name)
);
CREATE TABLE blocks (
	owner BLOB NOT NULL CHECK (length(owner) = 32),
	id    BLOB NOT NULL CHECK (length(id) = 32),
	added INTEGER NOT NULL,
	PRIMARY KEY (owner, id)
);
-- who is "contacts", "anyone" or the 32 bytes of an id
CREATE TABLE grants (
	owner    BLOB NOT NULL CHECK (length(owner) = 32),
	who      BLOB NOT NULL,
	protocol TEXT NOT NULL,
	instance TEXT NOT NULL,
	added    INTEGER NOT NULL,
	PRIMARY KEY (owner, who, protocol, instance)
);
-- hash is the SHA-256 of a ticket's secret; the secret itself is not kept
CREATE TABLE invites (
	hash    BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
	owner   BLOB NOT NULL CHECK (length(owner) = 32),
	name    TEXT NOT NULL,
	expires INTEGER NOT NULL,
	used_by BLOB CHECK (length(used_by) = 32),
	void    INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE delegations (
	identity BLOB NOT NULL CHECK (length(identity) = 32),
	node     BLOB NOT NULL CHECK (length(node) = 32),
	issued   INTEGER NOT NULL,
	expires  INTEGER NOT NULL,
	raw      BLOB NOT NULL,
	PRIMARY KEY (identity, node)
);
-- which of an owner's contacts it knows, from that contact, to live at a node
CREATE TABLE seen (
	owner BLOB NOT NULL CHECK (length(owner) = 32),
	id    BLOB NOT NULL CHECK (length(id) = 32),
	node  BLOB NOT NULL CHECK (length(node) = 32),
	PRIMARY KEY (owner, id, node)
);
CREATE TABLE addresses (
	node     BLOB NOT NULL CHECK (length(node) = 32),
	position INTEGER NOT NULL,
	address  TEXT NOT NULL,
	PRIMARY KEY (node, position)
);
-- what a user said about where a contact lives
CREATE TABLE hints (
	owner   BLOB NOT NULL CHECK (length(owner) = 32),
	id      BLOB NOT NULL CHECK (length(id) = 32),
	node    BLOB NOT NULL CHECK (length(node) = 32),
	address TEXT NOT NULL,
	added   INTEGER NOT NULL,
	PRIMARY KEY (owner, id, node, address)
);
CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
`}, {Name: "digests", SQL: sqlite.Seal("identities", "id", "uid", "name", "online", "added") +
		sqlite.Seal("contacts", "owner", "id", "name", "added") +
		sqlite.Seal("blocks", "owner", "id", "added") +
		sqlite.Seal("grants", "owner", "who", "protocol", "instance", "added") +
		sqlite.Seal("invites", "hash", "owner", "name", "expires", "used_by", "void") +
		sqlite.Seal("delegations", "identity", "node", "issued", "expires", "raw") +
		sqlite.Seal("seen", "owner", "id", "node") +
		sqlite.Seal("addresses", "node", "position", "address") +
		sqlite.Seal("hints", "owner", "id", "node", "address", "added") +
		sqlite.Seal("meta", "key", "value"),
	}}
}

// tables are all of them; each is sealed, and each is in memory whole.
func tables() []string {
	return []string{"identities", "contacts", "blocks", "grants", "invites", "delegations", "seen", "addresses", "hints", "meta"}
}
