package api

import "time"

// Status is what `fastn status` shows; Problems come first there.
type Status struct {
	Problems   []Problem  `json:"problems"`
	Unread     int64      `json:"unread"` // new Text messages in the caller's inboxes
	Wanted     []Wanted   `json:"wanted"` // what contacts would send, if it were served and granted
	Node       NodeStatus `json:"node"`
	Identities []Identity `json:"identities"`
	// DefaultIdentity is the id52 of the one that speaks where `from` is absent;
	// empty if there is none, or one must be named.
	DefaultIdentity string       `json:"default_identity,omitempty"`
	Mail            []Mail       `json:"mail"` // of the identities that have some to look at
	Peers           []Peer       `json:"peers"`
	Budgets         []BudgetUse  `json:"budgets"`
	Daemon          DaemonStatus `json:"daemon"`
}

// Mail counts the messages of one identity that wait for a person.
type Mail struct {
	Identity string `json:"identity"` // id52
	New      int64  `json:"new"`      // unread Text messages
	Failed   int64  `json:"failed"`   // sent ones that were refused or expired, and can be sent again; at most FailedCounted
}

// FailedCounted is as far as Mail.Failed counts.
const FailedCounted = 1000

// Wanted is a protocol for which messages wait at a contact.
type Wanted struct {
	Identity string    `json:"identity"` // id52 of the own identity they are for
	Contact  string    `json:"contact"`
	ID52     string    `json:"id52"`
	Protocol string    `json:"protocol"`
	Instance string    `json:"instance,omitempty"` // if not the default
	Granted  bool      `json:"granted,omitempty"`  // the contact may send them
	Served   bool      `json:"served,omitempty"`   // a program takes messages for it
	Last     time.Time `json:"last"`               // when it was last asked for
}

// Problem is something wrong that somebody can mend.
type Problem struct {
	Text string `json:"text"`
	Fix  string `json:"fix,omitempty"` // a command, or what to do
}

type NodeStatus struct {
	ID        string   `json:"id"` // id52 of the node key; empty when locked
	PeerID    string   `json:"peer_id"`
	Addresses []string `json:"addresses"` // multiaddrs with /p2p/NODEID, no wildcards
	Locked    bool     `json:"locked"`
	Ports     []string `json:"ports"` // to open in a firewall, as "4100/udp"
	// RefusedOpens counts what strangers, and contacts whom everybody has blocked,
	// asked for since the daemon started; for administrators, else 0.
	RefusedOpens uint64 `json:"refused_opens"`
}

type BudgetUse struct {
	Budget  string `json:"budget"`
	Used    int64  `json:"used"`
	Limit   int64  `json:"limit"`
	Setting string `json:"setting"` // key in fastn.toml
}

type DaemonStatus struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	PID     int       `json:"pid"`
	Socket  string    `json:"socket"`
	Config  string    `json:"config"`
	PerUser bool      `json:"per_user"`
	Runtime *Runtime  `json:"runtime,omitempty"` // for administrators, else absent
}

// Runtime is what the daemon's process is made of now.
type Runtime struct {
	Goroutines     int   `json:"goroutines"`
	IdleGoroutines int   `json:"idle_goroutines"` // of them, kept for the next requests
	HeapBytes      int64 `json:"heap_bytes"`      // alive at the last garbage collection
	OpenFiles      int   `json:"open_files"`      // descriptors; 0 if /proc cannot be read
}

type ReloadResult struct {
	Applied []string `json:"applied"` // keys whose new value is in force
	Restart []string `json:"restart"` // changed keys that need a restart
	// Unlocked tells that the daemon was locked, and runs its node since; all of
	// the configuration is in force then.
	Unlocked bool `json:"unlocked,omitempty"`
	// Acknowledged are the problems, losses and damage, that status told until now.
	Acknowledged []string   `json:"acknowledged,omitempty"`
	Online       []Identity `json:"online,omitempty"`   // that were not served before
	Problems     []Problem  `json:"problems,omitempty"` // of the node's key file, as status tells them
}

type Disconnected struct {
	Connections int `json:"connections"`
}

// Backup tells what daemon.backup wrote.
type Backup struct {
	Bytes   int64    `json:"bytes"`
	Keys    int      `json:"keys"`    // the node's among them
	Skipped []string `json:"skipped"` // files of keys that are refused
}
