package api

import (
	"encoding/json"
	"slices"
	"time"
)

// Request types that are not management verbs.
const (
	TypeHello        = "hello"
	TypeCall         = "call"
	TypeStream       = "stream"
	TypeStreamResult = "stream.result"
	TypeStreamReset  = "stream.reset"
	TypeListen       = "listen"
	TypeUnlisten     = "unlisten"
	TypeAccept       = "accept"
	TypeReply        = "reply"
	TypeSubscribe    = "subscribe"
)

// Management verbs: arguments in `data`, answer in `data`.
const (
	VerbIdentityList    = "identity.list"    // {} → []Identity
	VerbIdentityNew     = "identity.new"     // NameArgs → Identity
	VerbIdentityShow    = "identity.show"    // IdentityArgs → Identity
	VerbIdentityRename  = "identity.rename"  // RenameArgs → Identity
	VerbIdentityExport  = "identity.export"  // IdentityArgs, one descriptor to write to → Identity
	VerbIdentityImport  = "identity.import"  // NameArgs, one descriptor to read from → Identity
	VerbIdentityRemove  = "identity.remove"  // IdentityArgs → {}
	VerbIdentityOnline  = "identity.online"  // IdentityArgs → Identity
	VerbIdentityOffline = "identity.offline" // IdentityArgs → Identity

	VerbContactInvite  = "contact.invite"  // InviteArgs → Invitation
	VerbContactAdd     = "contact.add"     // ContactAddArgs → Contact
	VerbContactList    = "contact.list"    // {} → []Contact
	VerbContactRename  = "contact.rename"  // RenameArgs → Contact
	VerbContactRemove  = "contact.remove"  // NameArgs → {}
	VerbContactBlock   = "contact.block"   // NameArgs (a contact's name or an id) → Contact
	VerbContactUnblock = "contact.unblock" // NameArgs → Contact

	VerbGrantAdd    = "grant.add"    // GrantArgs → Grant
	VerbGrantList   = "grant.list"   // {} → []Grant
	VerbGrantRemove = "grant.remove" // GrantArgs → {}
	VerbAccessWhy   = "access.why"   // GrantArgs → Decision

	VerbPeerList = "peer.list" // {} → []Peer
	VerbPeerPing = "peer.ping" // TargetArgs → Pong

	VerbDaemonStatus     = "daemon.status"     // {} → Status
	VerbDaemonReload     = "daemon.reload"     // {} → ReloadResult; admin
	VerbDaemonStop       = "daemon.stop"       // {} → {}; admin; refused under systemd
	VerbDaemonDisconnect = "daemon.disconnect" // UserArgs → Disconnected; admin
	VerbDaemonBackup     = "daemon.backup"     // one descriptor to write to → Backup; admin
)

// Verb describes a management verb: who may use it and what it touches.
type Verb struct {
	Name  string
	Admin bool // uid 0 or group fastn-admin only
	Owned bool // acts on objects of an identity of the caller, chosen by `from`
	Files int  // descriptors the request must carry
	Args  any  // what its data is read into, as a value; nil if it has none
}

// Verbs lists every management verb, sorted by name. Tests of ownership are
// generated from it.
func Verbs() []Verb {
	v := []Verb{
		{Name: VerbIdentityList, Owned: true},
		{Name: VerbIdentityNew, Owned: true, Args: NameArgs{}},
		{Name: VerbIdentityShow, Owned: true, Args: IdentityArgs{}},
		{Name: VerbIdentityRename, Owned: true, Args: RenameArgs{}},
		{Name: VerbIdentityExport, Owned: true, Files: 1, Args: IdentityArgs{}},
		{Name: VerbIdentityImport, Owned: true, Files: 1, Args: NameArgs{}},
		{Name: VerbIdentityRemove, Owned: true, Args: IdentityArgs{}},
		{Name: VerbIdentityOnline, Owned: true, Args: IdentityArgs{}},
		{Name: VerbIdentityOffline, Owned: true, Args: IdentityArgs{}},
		{Name: VerbContactInvite, Owned: true, Args: InviteArgs{}},
		{Name: VerbContactAdd, Owned: true, Args: ContactAddArgs{}},
		{Name: VerbContactList, Owned: true},
		{Name: VerbContactRename, Owned: true, Args: RenameArgs{}},
		{Name: VerbContactRemove, Owned: true, Args: NameArgs{}},
		{Name: VerbContactBlock, Owned: true, Args: NameArgs{}},
		{Name: VerbContactUnblock, Owned: true, Args: NameArgs{}},
		{Name: VerbGrantAdd, Owned: true, Args: GrantArgs{}},
		{Name: VerbGrantList, Owned: true},
		{Name: VerbGrantRemove, Owned: true, Args: GrantArgs{}},
		{Name: VerbAccessWhy, Owned: true, Args: GrantArgs{}},
		{Name: VerbPeerList},
		{Name: VerbOutboxList, Owned: true, Args: OutboxListArgs{}},
		{Name: VerbOutboxShow, Owned: true, Args: OutboxArgs{}},
		{Name: VerbOutboxWait, Owned: true, Args: OutboxArgs{}},
		{Name: VerbOutboxCancel, Owned: true, Args: OutboxArgs{}},
		{Name: VerbOutboxRetry, Owned: true, Args: OutboxArgs{}},
		{Name: VerbInboxList, Owned: true, Args: InboxListArgs{}},
		{Name: VerbInboxShow, Owned: true, Args: InboxArgs{}},
		{Name: VerbInboxRead, Owned: true, Args: InboxArgs{}},
		{Name: VerbInboxRemove, Owned: true, Args: InboxArgs{}},
		{Name: VerbPeerPing, Owned: true, Args: TargetArgs{}},
		{Name: VerbDaemonStatus},
		{Name: VerbDaemonReload, Admin: true},
		{Name: VerbDaemonStop, Admin: true},
		{Name: VerbDaemonDisconnect, Admin: true, Args: UserArgs{}},
		{Name: VerbDaemonBackup, Admin: true, Files: 1},
	}
	slices.SortFunc(v, func(a, b Verb) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	return v
}

// HelloArgs is the `data` of hello.
type HelloArgs struct {
	Client  string `json:"client,omitempty"`  // program and version, for the journal
	Version int    `json:"version,omitempty"` // of the control protocol
}

// Hello is the answer: versions, so that skew is told.
type Hello struct {
	Daemon  string `json:"daemon"`  // version of fastnd
	Version int    `json:"version"` // of the control protocol
	Node    string `json:"node"`    // id52 of the node key; empty when locked
	Locked  bool   `json:"locked"`
	UID     uint32 `json:"uid"` // of the caller, as the kernel told it
	User    string `json:"user"`
	Admin   bool   `json:"admin"`
	PerUser bool   `json:"per_user"` // a daemon of one user, not of the system
	PID     int    `json:"pid"`
}

type NameArgs struct {
	Name string `json:"name"`
}

type IdentityArgs struct {
	Identity string `json:"identity"` // name or id52
}

type RenameArgs struct {
	Name string `json:"name"`
	To   string `json:"to"`
}

type TargetArgs struct {
	Target string `json:"target"` // contact name, id52, peer id or "self"
}

type UserArgs struct {
	User string `json:"user"` // name or number
}

// Identity is one identity of the caller.
type Identity struct {
	Name      string   `json:"name"`
	ID52      string   `json:"id52"`
	Owner     string   `json:"owner"` // user name, or "uid-N" where none is known
	Online    bool     `json:"online"`
	Protocols []string `json:"protocols"`         // served now, sorted
	Problem   string   `json:"problem,omitempty"` // why its key was refused
	Fix       string   `json:"fix,omitempty"`
}

type InviteArgs struct {
	For     string `json:"for,omitempty"`       // name of the contact to be
	Expires int64  `json:"expires_s,omitempty"` // seconds; 24 h if 0, at most 30 days
}

type Invitation struct {
	Ticket    string    `json:"ticket"`
	Identity  string    `json:"identity"` // id52
	Expires   time.Time `json:"expires"`
	Addresses []string  `json:"addresses"`
	Public    bool      `json:"public"` // at least one address is public
	Warning   string    `json:"warning,omitempty"`
}

type ContactAddArgs struct {
	Name    string `json:"name"`
	Ticket  string `json:"ticket,omitempty"`
	ID      string `json:"id,omitempty"`      // id52 or peer id, instead of a ticket
	Address string `json:"address,omitempty"` // multiaddr with /p2p/NODEID, with id
}

// Contact is one contact of the identity that asked.
type Contact struct {
	Name      string    `json:"name"`
	ID52      string    `json:"id52"`
	Identity  string    `json:"identity"` // id52 of the own identity it belongs to
	Nodes     []string  `json:"nodes"`    // id52 of nodes known to speak for it
	Addresses []string  `json:"addresses"`
	Blocked   bool      `json:"blocked"`
	Added     time.Time `json:"added"`
}

type GrantArgs struct {
	Who      string `json:"who"` // contact, "contacts" or "anyone"; for access.why also an id52
	Protocol string `json:"protocol"`
	Instance string `json:"instance,omitempty"` // "default" if empty
}

type Grant struct {
	Identity string    `json:"identity"`       // id52 of the own identity it belongs to
	Who      string    `json:"who"`            // contact's name, "contacts" or "anyone"
	ID52     string    `json:"id52,omitempty"` // of the contact
	Protocol string    `json:"protocol"`
	Instance string    `json:"instance"`
	Added    time.Time `json:"added"`
}

// Decision tells what access would answer and the rule that decides.
type Decision struct {
	Allowed  bool   `json:"allowed"`
	Rule     string `json:"rule"` // "owner", "block", "grant", "contact default", "anyone", "offline", "default deny", …
	Detail   string `json:"detail"`
	Who      string `json:"who"`
	ID52     string `json:"id52,omitempty"`
	Protocol string `json:"protocol"`
	Instance string `json:"instance"`
}

// Peer is a node that is connected, or known to hold a contact.
type Peer struct {
	Node      string   `json:"node"`     // id52 of the node
	Contacts  []string `json:"contacts"` // the caller's contacts there
	Connected bool     `json:"connected"`
	Path      string   `json:"path"` // "direct quic", "direct tcp", "relayed via …", ""
	Address   string   `json:"address,omitempty"`
	RTTMicros int64    `json:"rtt_us,omitempty"`
	Streams   int      `json:"streams"`          // of all users; for administrators, else 0
	Reason    string   `json:"reason,omitempty"` // why it is not connected
}

type Pong struct {
	RTTMicros int64  `json:"rtt_us"`
	Path      string `json:"path"`
	Address   string `json:"address,omitempty"`
}

// ListenArgs is the `data` of listen; protocol and instance stand in the
// request itself. Empty data serves calls and streams.
type ListenArgs struct {
	Kinds []string `json:"kinds,omitempty"` // "call", "stream", "message"; the first two if empty
}

// Incoming is told to a listener with status "incoming": a call to answer with
// reply, a stream to accept on a connection of its own, or a message to
// acknowledge with reply, which is told again until it is.
type Incoming struct {
	Incoming  string          `json:"incoming"` // UUID
	Kind      string          `json:"kind"`     // "call", "stream" or "message"
	Protocol  string          `json:"protocol"`
	Instance  string          `json:"instance"`
	To        string          `json:"to"`                   // id52 of the own identity
	From      string          `json:"from"`                 // id52 of the caller, proven
	Contact   string          `json:"contact"`              // the caller's name among the contacts, or ""
	MessageID string          `json:"message_id,omitempty"` // of a message: its sender's, the same each time
	Data      json.RawMessage `json:"data,omitempty"`
	Cancel    bool            `json:"cancel,omitempty"` // the caller went away; no reply is wanted
}

// StreamResult is the answer to stream.result: how the stream ended.
type StreamResult struct {
	Clean  bool   `json:"clean"`
	Code   Code   `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// SubscribeArgs is the `data` of subscribe.
type SubscribeArgs struct {
	Kinds  []string `json:"kinds,omitempty"`  // all if empty
	Cursor *uint64  `json:"cursor,omitempty"` // resume behind this event; only new ones if absent
}

// CursorLimit is above each cursor: numbers up to it are exact in every JSON reader.
const CursorLimit = 1 << 53

// Subscribed is the answer to subscribe: events behind Cursor will be told.
type Subscribed struct {
	Cursor uint64 `json:"cursor"`
}

// Event is told to a subscriber with status "event".
type Event struct {
	Cursor uint64    `json:"cursor"`
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"` // "peer_connected", "contact_added", … see PROTOCOL.md
	// Gap tells that events between the cursor asked for and this one are lost.
	Gap      bool   `json:"gap,omitempty"`
	Identity string `json:"identity,omitempty"`
	Contact  string `json:"contact,omitempty"`
	Node     string `json:"node,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Message  string `json:"message_id,omitempty"`
	Text     string `json:"text"` // for people
}

const (
	EventPeerConnected    = "peer_connected"
	EventPeerDisconnected = "peer_disconnected"
	EventContactAdded     = "contact_added"
	EventContactRemoved   = "contact_removed"
	EventContactRenamed   = "contact_renamed"
	EventContactBlocked   = "contact_blocked"
	EventContactUnblocked = "contact_unblocked"
	EventGrantChanged     = "grant_changed"
	EventIdentityChanged  = "identity_changed"
	EventListening        = "listening"
	EventListenEnded      = "listen_ended"
	EventReloaded         = "reloaded"
	EventMessageReceived  = "message_received"
	EventMessageDelivered = "message_delivered"
	EventMessageRefused   = "message_refused"
	EventMessageExpired   = "message_expired"
	EventMessageDamaged   = "message_damaged" // found changed on this machine's disk, and set aside
	EventProtocolWanted   = "protocol_wanted" // a contact has mail for a protocol that is not served, or not granted
	EventGap              = "gap"             // earlier events are lost; told whatever kinds are asked for
)

// EventKinds lists every kind of event, sorted.
func EventKinds() []string {
	return []string{EventContactAdded, EventContactBlocked, EventContactRemoved, EventContactRenamed, EventContactUnblocked,
		EventGap, EventGrantChanged, EventIdentityChanged, EventListenEnded, EventListening,
		EventMessageDamaged, EventMessageDelivered, EventMessageExpired, EventMessageReceived, EventMessageRefused,
		EventPeerConnected, EventPeerDisconnected, EventProtocolWanted, EventReloaded}
}
