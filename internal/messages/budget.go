package messages

import (
	"encoding/json"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	maxName = 256 // bytes of an id, a protocol or an instance

	settingQueued      = "budgets.per_uid_queued_messages"
	settingQueuedBytes = "budgets.per_uid_queued_bytes"
	settingStored      = "budgets.per_uid_stored_messages"
	settingNode        = "budgets.node_message_bytes"
)

// valid refuses what no box should hold. What data means is not looked at.
func valid(m *Message) error {
	for what, text := range map[string]string{"message_id": m.ID, "protocol": m.Protocol, "instance": m.Instance} {
		if text == "" || len(text) > maxName {
			return api.Errorf(api.CodeBadRequest, "%s has %d bytes, allowed are 1 to %d", what, len(text), maxName)
		}
	}
	switch {
	case m.From.IsZero() || m.To.IsZero():
		return api.Errorf(api.CodeBadRequest, "a message needs a sender and a receiver")
	case len(m.Data) > api.MaxPayload:
		return api.Errorf(api.CodeTooLarge, `"data" has %d bytes, the limit is %d`, len(m.Data), api.MaxPayload)
	case !json.Valid(m.Data):
		return api.Errorf(api.CodeBadRequest, `"data" is not JSON`)
	}
	return nil
}

// overQueued refuses a message of size bytes that uid's budget or the node's has
// no room for. need is how many bytes less would be accepted; 0 if that is not it.
func (s *Store) overQueued(uid uint32, size int64) (refusal *api.Error, need int64) {
	l, u, all := s.o.Limits(), s.use.queued(uid), s.use.onDisk()
	whose := s.o.UserName(uid) + " has"
	own, node := u.bytes+size-l.PerUIDQueuedBytes, all+size+rowCost-l.NodeMessageBytes
	switch {
	case u.messages >= l.PerUIDQueuedMessages:
		return localRefusal(whose, u.messages, l.PerUIDQueuedMessages, "queued messages", settingQueued), 0
	case own > 0:
		return localRefusal(whose, u.bytes, l.PerUIDQueuedBytes, "bytes of queued messages", settingQueuedBytes), max(own, node)
	case node > 0:
		return localRefusal("all users of this machine have", all, l.NodeMessageBytes, "bytes of messages", settingNode), node
	}
	return nil, 0
}

// overStored refuses one more message of uid's, whatever has become of the others.
func (s *Store) overStored(uid uint32) *api.Error {
	limit := s.o.Limits().PerUIDStoredMessages
	n := s.use.storedBy(uid)
	if n < limit {
		return nil
	}
	return localRefusal(s.o.UserName(uid)+" has", n, limit, "stored messages", settingStored).
		WithHint("the id of a message is remembered for 60 days after it arrived, or failed; ask an administrator to raise %s in fastn.toml and to reload the daemon", settingStored)
}

func localRefusal(has string, used, limit int64, what, setting string) *api.Error {
	return api.Errorf(api.CodeOverBudget, "over budget: %s %d of %d %s (%s)", has, used, limit, what, setting).
		WithHint("wait until some are delivered or cancel some of yours, or ask an administrator to raise %s in fastn.toml and to reload the daemon", setting)
}

// overUnread tells a peer that owner's inbox has no room for one more message of
// size bytes: the budget and whose side it is, nothing else of ours.
func (s *Store) overUnread(owner, peer identity.ID, size int64) *api.Error {
	l, u := s.o.Limits(), s.use.get(unreadOf, owner, peer)
	uid, here := s.o.Owner(owner)
	switch {
	case s.use.get(storedOf, owner, peer).messages >= l.PerPeerStoredMessages:
		return storedRefusal("stored messages", l.PerPeerStoredMessages)
	case here && s.use.storedBy(uid) >= l.PerUIDStoredMessages:
		return storedRefusal("stored messages of all senders", l.PerUIDStoredMessages)
	case u.messages >= l.PerPeerUnreadMessages:
		return peerRefusal("unread messages", l.PerPeerUnreadMessages)
	case u.bytes+size > l.PerPeerUnreadBytes:
		return peerRefusal("bytes of unread messages", l.PerPeerUnreadBytes)
	case s.use.onDisk()+size+rowCost > l.NodeMessageBytes:
		return peerRefusal("bytes of all messages", l.NodeMessageBytes)
	}
	return nil
}

func peerRefusal(what string, limit int64) *api.Error {
	return api.Errorf(api.CodeOverBudget, "over budget: %s (%d) on the peer's side", what, limit).
		WithHint("the message waits until the peer has read some")
}

func storedRefusal(what string, limit int64) *api.Error {
	return peerRefusal(what, limit).
		WithHint("the message waits until the peer's machine has forgotten some, 60 days after they arrived, or its administrator raises the limit")
}
