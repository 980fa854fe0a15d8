package systemd

import "log/slog"

// MessageIDKey is the attribute that becomes the journal's MESSAGE_ID, by
// which an administrator finds an event and journalctl -x its explanation in
// packaging/systemd/fastn.catalog.
const MessageIDKey = "message_id"

// MessageID marks a record as one on which an administrator must act. It is a
// type, so that no string of a peer's can take its place: a plain string under
// [MessageIDKey] is an ordinary field.
type MessageID string

// Attr is the attribute to log id with.
func (id MessageID) Attr() slog.Attr { return slog.Any(MessageIDKey, id) }

// The catalogued events. Never change or reuse an id.
const (
	MsgKeystoreLocked      MessageID = "93f61d7fce6541fcba80f0b3734539d6" // the node key or the keystore folder was refused
	MsgPortUnavailable     MessageID = "fe498d870e804f3a9e2e6ec1bdf39743" // an address or port to listen on is not available
	MsgConfigRefused       MessageID = "92808abfa5194705a226b4420527075b" // a reload was refused, the old configuration stays
	MsgStoreDamaged        MessageID = "19b630386db34b9ba458ef7e537a3b7c" // rows of the store were set aside or lost
	MsgClockSkew           MessageID = "34bcdb595b03472a9f1f4a603005bbac" // a peer's clock and ours disagree
	MsgWatchdogProbeFailed MessageID = "2292c6dc0a3d42aea585efcb58065a69" // the daemon did not answer its own request
	MsgBudgetExhausted     MessageID = "0319e2d50b2b4318ae7f3cd93791dd43" // a user's or the node's budget is used up
	MsgDiskRefuses         MessageID = "ba7b2cf2de6c4a4c95f4d04c6a5e1c3d" // the disk is full, read-only or failing
	MsgUnitConfines        MessageID = "5d0f3ae1c7974b7b8f3e1d0a6c94be27" // a drop-in takes away what fastnd needs
)

// MessageIDs lists all of them.
func MessageIDs() []MessageID {
	return []MessageID{
		MsgKeystoreLocked,
		MsgPortUnavailable,
		MsgConfigRefused,
		MsgStoreDamaged,
		MsgClockSkew,
		MsgWatchdogProbeFailed,
		MsgBudgetExhausted,
		MsgDiskRefuses,
		MsgUnitConfines,
	}
}
