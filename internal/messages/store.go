// Package messages keeps queued and received messages in DIR/messages.db.
//
// Every write is committed and synced before its method returns; many callers
// share one commit. Each row carries a digest of its content, checked whenever
// it is read; one that fails is set aside, and the rest is served.
//
// Errors for users are *api.Error of CodeNotFound, CodeConflict, CodeBadRequest,
// CodeTooLarge, CodeExpired or CodeOverBudget; any other error means that the
// disk failed and that nothing was stored.
package messages

import (
	"context"
	"errors"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/sqlite"
)

// File is the database's name in the state folder.
const File = "messages.db"

// Limits are the budgets of fastn.toml, all above 0.
type Limits struct {
	PerUIDQueuedMessages  int64
	PerUIDQueuedBytes     int64
	PerPeerUnreadMessages int64
	PerPeerUnreadBytes    int64
	NodeMessageBytes      int64
	KeepRead              time.Duration // how long read messages are kept
}

// Options of Open. Limits and Owner are needed.
type Options struct {
	Now    func() time.Time // time.Now if nil
	Limits func() Limits    // asked at each use
	// Owner tells whose identity of this machine id is. It must not wait.
	Owner func(id identity.ID) (uid uint32, ok bool)
	// UserName names a uid in refusals; nil for "uid N".
	UserName func(uid uint32) string
	// OnAside is told of each row set aside, once that is committed; may be nil.
	OnAside func(Aside)
	// OnRecovery is told when the file was repaired while in use; may be nil.
	OnRecovery func(*sqlite.Recovery)
}

// Store is safe for concurrent use.
type Store struct {
	o Options
}

var errNotBuilt = errors.New("messages: not built yet")

// Open opens or creates dir/messages.db. A damaged file is repaired as far as
// possible; Recovery tells. Errors wrap sqlite.ErrDamaged, sqlite.ErrNewer or
// sqlite.ErrUnsafeFile where they apply.
func Open(ctx context.Context, dir string, o Options) (*Store, error) { return &Store{o: o}, nil }

// Close waits for calls that run and ends the store; it may be called again.
func (s *Store) Close() error { return nil }

// Recovery tells what Open repaired, nil if there was nothing.
func (s *Store) Recovery() *sqlite.Recovery { return nil }

// CheckAll reads everything: the file's structure, each row's digest, and the
// counters. It is meant to run in the background after Open, which looks only
// at a few pages. Damage is mended as at Open, and told by OnAside, OnRecovery.
func (s *Store) CheckAll(ctx context.Context) error { return errNotBuilt }

// Aside lists what was set aside, newest first, at most limit.
func (s *Store) Aside(ctx context.Context, limit int) ([]Aside, error) { return nil, errNotBuilt }

// AsideCount tells how many rows were set aside and not pruned yet.
func (s *Store) AsideCount() int64 { return 0 }

// Prune forgets what is past its time: final messages and the memory of those
// gone after Remembered, read ones after Limits.KeepRead.
func (s *Store) Prune(ctx context.Context) error { return errNotBuilt }

// Forget removes all of an identity that left this machine.
func (s *Store) Forget(ctx context.Context, id identity.ID) error { return errNotBuilt }

// Backup writes a consistent copy to path, which must not exist.
func (s *Store) Backup(ctx context.Context, path string) error { return errNotBuilt }
