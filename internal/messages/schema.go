package messages

import "github.com/fastn-stack/fastnd/internal/sqlite"

// migrations make the schema. Times are µs since 1970, ids 32 bytes. A migration
// that was released never changes; testdata keeps a file of each version.
//
// Tables have rowids, so that a damaged file can be read from both ends. Data
// is the last column: what comes before is read without it. Indexes are over
// hashes of what they find, as ids and names are long and these are written for
// each message: key, who, lane, peer, slot, see digest.go.
func migrations() []sqlite.Migration {
	return []sqlite.Migration{{Name: "outbox, inbox", SQL: `
CREATE TABLE outbox (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT,
	key        INTEGER NOT NULL UNIQUE, -- of sender, message_id
	who        INTEGER NOT NULL, -- of sender
	lane       INTEGER NOT NULL, -- of sender, receiver, protocol, instance
	sender     BLOB NOT NULL,
	receiver   BLOB NOT NULL,
	protocol   TEXT NOT NULL,
	instance   TEXT NOT NULL,
	message_id TEXT NOT NULL,
	size       INTEGER NOT NULL,
	created    INTEGER NOT NULL,
	expires    INTEGER NOT NULL,
	state      TEXT NOT NULL, -- queued, delivered, refused, expired, cancelled
	code       TEXT NOT NULL,
	reason     TEXT NOT NULL,
	done       INTEGER, -- when it became final
	content    BLOB NOT NULL, -- digest of what the receiver gets
	digest     BLOB NOT NULL, -- digest of content and of all columns that never change
	data       BLOB -- gone when delivered or cancelled
);
CREATE INDEX outbox_lane    ON outbox (who, lane, seq) WHERE state = 'queued';
CREATE INDEX outbox_expires ON outbox (expires) WHERE state = 'queued';
CREATE INDEX outbox_final   ON outbox (who, seq) WHERE state <> 'queued';
CREATE INDEX outbox_done    ON outbox (done) WHERE state <> 'queued';
CREATE INDEX outbox_kept    ON outbox (who, seq) WHERE state <> 'queued' AND data IS NOT NULL;
-- why a lane's messages wait
CREATE TABLE waits (
	lane     INTEGER NOT NULL PRIMARY KEY,
	tries    INTEGER NOT NULL,
	next_try INTEGER NOT NULL, -- 0: now
	code     TEXT NOT NULL,
	reason   TEXT NOT NULL
);
CREATE TABLE inbox (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT,
	key        INTEGER NOT NULL, -- of owner, message_id
	peer       INTEGER NOT NULL, -- of sender
	who        INTEGER NOT NULL, -- of owner
	slot       INTEGER NOT NULL, -- of owner, protocol, instance
	owner      BLOB NOT NULL,
	sender     BLOB NOT NULL,
	protocol   TEXT NOT NULL,
	instance   TEXT NOT NULL,
	message_id TEXT NOT NULL,
	size       INTEGER NOT NULL,
	created    INTEGER NOT NULL, -- by the sender's clock
	received   INTEGER NOT NULL,
	seen       INTEGER, -- when it was read
	state      TEXT NOT NULL, -- unread, read, gone: known, so that it is not taken again
	content    BLOB NOT NULL,
	digest     BLOB NOT NULL,
	data       BLOB, -- gone when gone
	UNIQUE (key, peer)
);
CREATE INDEX inbox_list   ON inbox (who, seq, state) WHERE state <> 'gone';
CREATE INDEX inbox_unread ON inbox (slot, seq) WHERE state = 'unread';
CREATE INDEX inbox_read   ON inbox (seen) WHERE state = 'read';
CREATE INDEX inbox_gone   ON inbox (received, who) WHERE state = 'gone';
-- protocols that peers asked for and that are not served, or not granted
CREATE TABLE wanted (
	owner    BLOB NOT NULL,
	sender   BLOB NOT NULL,
	protocol TEXT NOT NULL,
	instance TEXT NOT NULL,
	count    INTEGER NOT NULL,
	first    INTEGER NOT NULL,
	last     INTEGER NOT NULL,
	UNIQUE (owner, sender, protocol, instance)
);
-- what the budgets count, so that nothing is summed up at the start
CREATE TABLE usage (
	kind     INTEGER NOT NULL, -- 1 queued by owner, 2 unread of peer at owner, 3 all rows
	owner    BLOB NOT NULL,
	peer     BLOB NOT NULL,
	messages INTEGER NOT NULL,
	bytes    INTEGER NOT NULL,
	UNIQUE (kind, owner, peer)
);
-- rows whose digest was wrong, as they were found
CREATE TABLE aside (
	box        TEXT NOT NULL,
	seq        INTEGER NOT NULL,
	sender     BLOB,
	receiver   BLOB,
	message_id TEXT,
	found      INTEGER NOT NULL,
	reason     TEXT NOT NULL,
	data       BLOB
);
`}}
}
