// Package config reads fastn.toml, the configuration of fastnd.
//
// The file is strict: an unknown key, a value of the wrong type or out of its
// range is an error that names file, line, key and what was expected. Nothing
// is touched on the machine while it is read, and no key is taken from the
// environment.
package config

// DefaultPort is where a system-wide fastnd listens, over UDP and TCP.
const DefaultPort = 4100

// Config is the whole of fastn.toml. The zero value is not valid; start from
// [Default] or [DefaultPerUser].
type Config struct {
	P2P      P2P
	Log      Log
	Budgets  Budgets
	Identity Identity
	Messages Messages
}

// P2P says where the node listens and whom it knows from the start.
type P2P struct {
	// Port is used for UDP (QUIC) and TCP alike; 0 asks for a free one, which
	// the daemon then keeps.
	Port int
	// Listen holds IP addresses of this machine, or the wildcards.
	Listen []string
	// Announce holds multiaddrs told to peers beside those of the interfaces,
	// for machines behind 1:1 NAT.
	Announce []string
	TCP      bool
	QUIC     bool
	// StaticPeers are nodes whose addresses are known without discovery.
	StaticPeers []StaticPeer
}

// StaticPeer is one [[p2p.static_peers]] table.
type StaticPeer struct {
	// ID is the node's peer id or its id52.
	ID string
	// Addresses are multiaddrs; at least one.
	Addresses []string
}

// Log is about what fastnd writes to the journal or standard error.
type Log struct {
	// Level is one of debug, info, warn, error.
	Level string
}

// Budgets bound what one user, one peer and the whole node may hold. Every
// refusal names the key that caused it, so the names here are part of the
// interface. "uid" is a local user, "peer" a remote identity.
type Budgets struct {
	PerUIDConnections    int
	PerUIDRequests       int
	PerUIDStreams        int
	PerUIDBufferedBytes  Size
	PerUIDQueuedMessages int
	PerUIDQueuedBytes    Size
	PerUIDStoredMessages int

	PerPeerRequests       int
	PerPeerStreams        int
	PerPeerUnreadMessages int
	PerPeerUnreadBytes    Size
	PerPeerStoredMessages int
	NodeMessageBytes      Size

	// Refused opens are counted per second. Identities cost nothing to make,
	// so the remote node and its address are counted too.
	PerPeerRefusedOpens    int
	PerNodeRefusedOpens    int
	PerAddressRefusedOpens int

	StreamWindowInitial Size
	StreamWindowMax     Size
	StalledStreams      int
	NodeConnections     int
	NodeBufferedBytes   Size
}

// Identity is about the keys of users.
type Identity struct {
	DelegationTTL Duration
}

// Messages is about the inbox.
type Messages struct {
	KeepRead Duration
}

// Default is the configuration of a system-wide fastnd whose file says nothing.
func Default() Config {
	return Config{
		P2P: P2P{
			Port:   DefaultPort,
			Listen: []string{"0.0.0.0", "::"},
			TCP:    true,
			QUIC:   true,
		},
		Log: Log{Level: "info"},
		Budgets: Budgets{
			PerUIDConnections:      256,
			PerUIDRequests:         1024,
			PerUIDStreams:          256,
			PerUIDBufferedBytes:    64 * MiB,
			PerUIDQueuedMessages:   100_000,
			PerUIDQueuedBytes:      1 * GiB,
			PerUIDStoredMessages:   8_000_000,
			PerPeerRequests:        256,
			PerPeerStreams:         64,
			PerPeerUnreadMessages:  100_000,
			PerPeerUnreadBytes:     256 * MiB,
			PerPeerStoredMessages:  4_000_000,
			NodeMessageBytes:       16 * GiB,
			PerPeerRefusedOpens:    10,
			PerNodeRefusedOpens:    20,
			PerAddressRefusedOpens: 50,
			StreamWindowInitial:    1 * MiB,
			StreamWindowMax:        4 * MiB,
			StalledStreams:         128,
			NodeConnections:        16_384,
			NodeBufferedBytes:      256 * MiB,
		},
		Identity: Identity{DelegationTTL: 7 * Day},
		Messages: Messages{KeepRead: 365 * Day},
	}
}

// DefaultPerUser is [Default] for a per-user fastnd: it takes a free port.
func DefaultPerUser() Config {
	c := Default()
	c.P2P.Port = 0
	return c
}
