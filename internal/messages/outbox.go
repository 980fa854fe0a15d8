package messages

import (
	"context"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// Put queues m. Seq is ignored; Created is now if zero, Expires Created plus
// DefaultLife if zero. The same ID with the same receiver, protocol, instance
// and data as before is no second message: the answer is what is known of the
// first. Errors: CodeConflict if the ID has other content, CodeBadRequest for a
// life that is over or longer than MaxLife, CodeOverBudget.
func (s *Store) Put(ctx context.Context, m Message) (Outgoing, error) {
	return Outgoing{}, errNotBuilt
}

// Lanes lists all lanes that have queued messages.
func (s *Store) Lanes(ctx context.Context) ([]Waiting, error) { return nil, errNotBuilt }

// Head gives the first messages of a lane, in order: at most maxMessages, and
// at most maxBytes of data unless the first alone has more. Expired ones are
// left out.
func (s *Store) Head(ctx context.Context, l Lane, maxMessages, maxBytes int) ([]Message, error) {
	return nil, errNotBuilt
}

// Settle records what became of messages of a lane, and why the rest waits, in
// one commit. A nil wait means that nothing keeps the lane from being tried.
// Outcomes of messages that are not queued any more are ignored.
func (s *Store) Settle(ctx context.Context, l Lane, outcomes []Outcome, wait *Wait) error {
	return errNotBuilt
}

// Outgoing gives one message; CodeNotFound if there is none.
func (s *Store) Outgoing(ctx context.Context, from identity.ID, id string) (Outgoing, error) {
	return Outgoing{}, errNotBuilt
}

// ListOut lists an identity's queued messages, with finalToo the others also.
func (s *Store) ListOut(ctx context.Context, from identity.ID, p Page, finalToo bool) ([]Outgoing, error) {
	return nil, errNotBuilt
}

// Cancel ends a queued message; one that is cancelled already stays so. Errors:
// CodeNotFound, CodeConflict if it is final in another way.
func (s *Store) Cancel(ctx context.Context, from identity.ID, id string) (Outgoing, error) {
	return Outgoing{}, errNotBuilt
}

// Retry makes a refused or expired message queued again, with a new life, at the end of
// its lane; a queued one's lane is due now. Errors: CodeNotFound, CodeConflict if
// it was delivered or cancelled, CodeOverBudget.
func (s *Store) Retry(ctx context.Context, from identity.ID, id string) (Outgoing, error) {
	return Outgoing{}, errNotBuilt
}

// Expire ends the messages whose life is over, and gives them.
func (s *Store) Expire(ctx context.Context) ([]Outgoing, error) { return nil, errNotBuilt }
