package messages

import (
	"context"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// Take puts messages of one lane into their receiver's inbox, in one commit; an
// answer for each. Errors are CodeConflict (the ID has other content),
// CodeExpired (created longer ago than MaxLife), CodeClockSkew (created in the
// future), CodeTooLarge, CodeBadRequest: final; CodeOverBudget, CodeInternal
// (the disk): to be tried again, and then all that follow in the same lane have
// the same error, so that order is kept.
func (s *Store) Take(ctx context.Context, ms []Message) []Taken { return nil }

// ListIn lists an identity's inbox.
func (s *Store) ListIn(ctx context.Context, owner identity.ID, p Page, unreadOnly bool) ([]Incoming, error) {
	return nil, errNotBuilt
}

// Incoming finds a message by its ID, or by "SENDER/ID" where several senders
// used one. Errors: CodeNotFound, CodeConflict which names the senders.
func (s *Store) Incoming(ctx context.Context, owner identity.ID, ref string) (Incoming, error) {
	return Incoming{}, errNotBuilt
}

// MarkRead marks messages as read; those that are not there are ignored.
func (s *Store) MarkRead(ctx context.Context, owner identity.ID, seqs ...int64) error {
	return errNotBuilt
}

// Remove removes messages; their ids stay known for Remembered. Those that are
// not there are ignored.
func (s *Store) Remove(ctx context.Context, owner identity.ID, seqs ...int64) error {
	return errNotBuilt
}

// Waiting lists unread messages of one protocol, for the program that serves it.
func (s *Store) Waiting(ctx context.Context, owner identity.ID, protocol, instance string, p Page) ([]Incoming, error) {
	return nil, errNotBuilt
}

// Acknowledge removes a message that a program has taken. Once more is no error.
func (s *Store) Acknowledge(ctx context.Context, owner, sender identity.ID, id string) error {
	return errNotBuilt
}

// Unread counts an identity's unread messages.
func (s *Store) Unread(owner identity.ID) int64 { return 0 }
