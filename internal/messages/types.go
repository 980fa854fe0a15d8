package messages

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// What bounds a message's life. A receiver remembers ids for Remembered, so
// that no message that may still be on its way is taken twice.
const (
	DefaultLife = 7 * 24 * time.Hour
	MaxLife     = 30 * 24 * time.Hour
	Remembered  = 60 * 24 * time.Hour
)

// Message is what one identity sends another. Times have a resolution of 1 µs.
type Message struct {
	Seq                int64  // its place in this outbox or inbox, growing; 0 until stored
	ID                 string // the sender's; unique with From
	From, To           identity.ID
	Protocol, Instance string
	Data               json.RawMessage // nil once the message is final or gone
	Created            time.Time       // by the sender's clock
	Expires            time.Time       // of outgoing ones
}

// Lane gives the lane that m belongs to.
func (m *Message) Lane() Lane { return Lane{m.From, m.To, m.Protocol, m.Instance} }

// Lane is that within which order is kept.
type Lane struct {
	From, To           identity.ID
	Protocol, Instance string
}

// State is that of an outgoing message. All but Queued are final.
type State uint8

// States.
const (
	Queued State = iota + 1
	Delivered
	Refused
	Expired
	Cancelled
)

func (s State) String() string {
	switch s {
	case Queued:
		return "queued"
	case Delivered:
		return "delivered"
	case Refused:
		return "refused"
	case Expired:
		return "expired"
	case Cancelled:
		return "cancelled"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// parseState reads what String gives.
func parseState(text string) (State, bool) {
	for s := Queued; s <= Cancelled; s++ {
		if s.String() == text {
			return s, true
		}
	}
	return 0, false
}

// Outgoing is a message in the outbox. While it is queued, Code, Reason, Tries
// and NextTry are those of its lane: why the lane waits, how often that was
// tried, and when it will be tried next (zero: now).
type Outgoing struct {
	Message
	State   State
	Code    api.Code
	Reason  string
	Tries   int
	NextTry time.Time
	Done    time.Time // when it became final
	Size    int64     // of its data, in bytes, also once that is gone
}

// Incoming is a message in an inbox.
type Incoming struct {
	Message
	Received time.Time
	Read     bool
}

// Waiting is a lane that has queued messages, and when to try it (zero: now).
type Waiting struct {
	Lane
	Code    api.Code
	Reason  string
	Tries   int
	NextTry time.Time
}

// Outcome is what became of one message of a lane: Delivered or Refused, with
// Code and Reason for the latter.
type Outcome struct {
	Seq    int64
	ID     string
	State  State
	Code   api.Code
	Reason string
}

// Wait is why what is left in a lane stays queued, and until when.
type Wait struct {
	Code    api.Code
	Reason  string
	NextTry time.Time
}

// Taken is what became of one message that was to be put into an inbox. Err is
// nil if it lies there, also if it did before.
type Taken struct {
	Seq   int64
	Fresh bool // it was not there before
	Err   error
}

// Page bounds a list. Messages have a Seq above After, oldest first.
type Page struct {
	After    int64
	Limit    int // messages; 256 if zero
	MaxBytes int // of data; at least one message is given; no bound if zero
}

// Wanted counts how often Sender asked for a protocol that is not served, or
// not granted.
type Wanted struct {
	Sender             identity.ID
	Protocol, Instance string
	Count              int64
	First, Last        time.Time

	serial int64 // tells one time of asking from the next
}

// Aside is a row whose content was found changed on the disk. It is served no more.
type Aside struct {
	Box    string // "outbox" or "inbox"
	Seq    int64
	From   identity.ID // these as far as they could be read
	To     identity.ID
	ID     string
	Found  time.Time
	Reason string
}
