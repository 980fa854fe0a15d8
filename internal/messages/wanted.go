package messages

import (
	"context"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// Want counts that sender asked owner for a protocol that is not served, or not
// granted. first tells that the user is to be told: once per peer and protocol.
func (s *Store) Want(ctx context.Context, owner, sender identity.ID, protocol, instance string) (first bool, err error) {
	return false, errNotBuilt
}

// Wanted lists what was wanted of owner, newest first.
func (s *Store) Wanted(ctx context.Context, owner identity.ID) ([]Wanted, error) {
	return nil, errNotBuilt
}

// Served tells who waits for a protocol that is served now, and forgets them.
// It is to be asked again when it is granted: may tells whom to take out, nil for all.
func (s *Store) Served(ctx context.Context, owner identity.ID, protocol, instance string, may func(sender identity.ID) bool) ([]identity.ID, error) {
	return nil, errNotBuilt
}
