package api

import (
	"encoding/json"
	"time"
)

// TypeSend asks for a durable message; its target, protocol, instance, data,
// message_id and expires_s stand in the request itself. The answer, SendResult,
// comes after it is on the disk.
const TypeSend = "send"

// Verbs of messages. A message_id is unique for its sender: among what an
// identity sent it names one message, among what it received one of a contact.
const (
	VerbOutboxList   = "outbox.list"   // OutboxListArgs → OutboxPage
	VerbOutboxShow   = "outbox.show"   // OutboxArgs → OutboxMessage
	VerbOutboxWait   = "outbox.wait"   // OutboxArgs → OutboxMessage, once its state is final or the time has passed
	VerbOutboxCancel = "outbox.cancel" // OutboxArgs → OutboxMessage
	VerbOutboxRetry  = "outbox.retry"  // OutboxArgs → OutboxMessage
	VerbInboxList    = "inbox.list"    // InboxListArgs → InboxPage
	VerbInboxShow    = "inbox.show"    // InboxArgs → InboxMessage
	VerbInboxRead    = "inbox.read"    // InboxArgs → InboxMessage, which is read from now on, unless it is for a program
	VerbInboxRemove  = "inbox.remove"  // InboxArgs → InboxMessage, which is gone
)

// States of a sent message.
const (
	StateQueued    = "queued"    // on the disk, not yet with the receiver; Reason tells why
	StateDelivered = "delivered" // on the receiver's disk
	StateRefused   = "refused"   // the receiver will not have it
	StateExpired   = "expired"   // its life ended before it could be delivered
	StateCancelled = "cancelled" // its sender took it back
)

// SendResult is the answer to send. A retry with the same message_id and content
// gets the state that the message has by then.
type SendResult struct {
	MessageID string `json:"message_id"`
	State     string `json:"state"`
}

// OutboxListArgs chooses what outbox.list shows, in the order of sending.
type OutboxListArgs struct {
	After int64 `json:"after,omitempty"` // the page behind this cursor
	Limit int   `json:"limit,omitempty"` // at most this many; 100 if 0, at most 1,000
	All   bool  `json:"all,omitempty"`   // delivered and cancelled ones too
}

// OutboxArgs names a sent message.
type OutboxArgs struct {
	MessageID string `json:"message_id"`
}

// OutboxMessage is a message that the identity sent.
type OutboxMessage struct {
	MessageID string     `json:"message_id"`
	To        string     `json:"to"`      // id52
	Contact   string     `json:"contact"` // the receiver's name among the contacts, or ""
	Protocol  string     `json:"protocol"`
	Instance  string     `json:"instance,omitempty"` // if not the default
	State     string     `json:"state"`
	Code      Code       `json:"code,omitempty"`   // why it waits or failed
	Reason    string     `json:"reason,omitempty"` // the same, for people
	Size      int64      `json:"size"`             // of its data, in bytes
	Created   time.Time  `json:"created"`
	Expires   time.Time  `json:"expires"`
	NextTry   *time.Time `json:"next_try,omitempty"` // of a queued one
	Tries     int        `json:"tries"`
	Done      *time.Time `json:"done,omitempty"` // when its state became final
	// Data is kept until the message is delivered or cancelled. It is left out where the
	// line has no room for it beside the rest.
	Data json.RawMessage `json:"data,omitempty"`
}

// OutboxPage is a page of the outbox. With More there are others behind Cursor, also
// where Messages is empty.
type OutboxPage struct {
	Messages []OutboxMessage `json:"messages"`
	Cursor   int64           `json:"cursor"` // After of the next page
	More     bool            `json:"more"`
}

// InboxListArgs chooses what inbox.list shows, oldest first.
type InboxListArgs struct {
	After  int64 `json:"after,omitempty"`
	Limit  int   `json:"limit,omitempty"` // at most this many; 100 if 0, at most 1,000
	Unread bool  `json:"unread,omitempty"`
	// Wait holds the answer back until there is a message, or timeout_ms has passed:
	// then the page is empty.
	Wait bool `json:"wait,omitempty"`
}

// InboxArgs names a received message; From, a contact or id52, only where several
// senders used the same message_id.
type InboxArgs struct {
	MessageID string `json:"message_id"`
	From      string `json:"sender,omitempty"`
}

// InboxMessage is a message that the identity received.
type InboxMessage struct {
	MessageID string          `json:"message_id"` // the sender's
	From      string          `json:"from"`       // id52, proven
	Contact   string          `json:"contact"`    // the sender's name among the contacts, or ""
	Protocol  string          `json:"protocol"`
	Instance  string          `json:"instance,omitempty"` // if not the default
	Data      json.RawMessage `json:"data"`
	Received  time.Time       `json:"received"`
	Read      bool            `json:"read"`
}

// InboxPage is a page of the inbox. It is bounded by MaxLine too, so that it may
// hold fewer than asked for.
type InboxPage struct {
	Messages []InboxMessage `json:"messages"`
	Cursor   int64          `json:"cursor"` // After of the next page
	More     bool           `json:"more"`
}
