package config

// maxListItems bounds every list in the file.
const maxListItems = 256

// allKeys is the one table of keys: the parser, the reload check, the man page
// test and the shipped file's test all read it.
func allKeys() []spec {
	return append(append(p2pKeys(), generalKeys()...), budgetKeys()...)
}

func p2pKeys() []spec {
	return []spec{
		intKey("p2p.port", func(c *Config) *int { return &c.P2P.Port }, 0, 65535,
			"Port for UDP (QUIC) and TCP alike; open both in the firewall. 0 takes a free port at the first start and keeps it, which is what a per-user fastnd does unless told otherwise.").needsRestart(),
		listKey("p2p.listen", "list of IP addresses", func(c *Config) *[]string { return &c.P2P.Listen }, 1, checkIP,
			"IP addresses of this machine to listen on. All of them must be usable, or fastnd does not start its network side.").needsRestart(),
		listKey("p2p.announce", "list of multiaddrs", func(c *Config) *[]string { return &c.P2P.Announce }, 0, checkMultiaddr,
			"Addresses to tell peers beside those of the interfaces. Needed for a machine behind 1:1 NAT, such as a cloud machine, whose public address is on no interface."),
		boolKey("p2p.tcp", func(c *Config) *bool { return &c.P2P.TCP },
			"Listen and dial over TCP (TLS, yamux). At least one of p2p.tcp and p2p.quic must be true.").needsRestart(),
		boolKey("p2p.quic", func(c *Config) *bool { return &c.P2P.QUIC },
			"Listen and dial over QUIC, which is tried first.").needsRestart(),
		staticPeersKey(),
	}
}

func generalKeys() []spec {
	return []spec{
		choiceKey("log.level", func(c *Config) *string { return &c.Log.Level }, []string{"debug", "info", "warn", "error"},
			"Least severe level that is logged."),
		durationKey("identity.delegation_ttl", func(c *Config) *Duration { return &c.Identity.DelegationTTL }, Day/24, 30*Day,
			"How long an identity lets this node speak for it before that is renewed, which happens at half of it. A shorter time makes a lost machine harmless sooner."),
		durationKey("messages.keep_read", func(c *Config) *Duration { return &c.Messages.KeepRead }, Day, 36500*Day,
			"How long a message is kept after it was read. Unread ones are kept until they are read or removed."),
	}
}

func budgetKeys() []spec {
	const many = 1 << 24
	return []spec{
		intKey("budgets.per_uid_connections", func(c *Config) *int { return &c.Budgets.PerUIDConnections }, 1, many,
			"Connections one local user may hold to the control socket."),
		intKey("budgets.per_uid_requests", func(c *Config) *int { return &c.Budgets.PerUIDRequests }, 1, many,
			"Requests of one local user that may wait for an answer."),
		intKey("budgets.per_uid_streams", func(c *Config) *int { return &c.Budgets.PerUIDStreams }, 1, many,
			"Streams one local user may have open."),
		sizeKey("budgets.per_uid_buffered_bytes", func(c *Config) *Size { return &c.Budgets.PerUIDBufferedBytes }, MiB, TiB,
			"Bytes of one local user that the daemon holds in memory: requests in flight, unfinished lines and unread answers. What is small counts for nothing."),
		intKey("budgets.per_uid_queued_messages", func(c *Config) *int { return &c.Budgets.PerUIDQueuedMessages }, 1, many,
			"Messages of one local user that may wait to be delivered."),
		sizeKey("budgets.per_uid_queued_bytes", func(c *Config) *Size { return &c.Budgets.PerUIDQueuedBytes }, MiB, TiB,
			"Bytes of one local user's messages that may wait to be delivered."),
		intKey("budgets.per_uid_stored_messages", func(c *Config) *int { return &c.Budgets.PerUIDStoredMessages }, 1, many,
			"Messages of one local user, sent and received, that may lie on the disk in any state: an id is remembered for 60 days after its message arrived, or failed."),
		intKey("budgets.per_peer_requests", func(c *Config) *int { return &c.Budgets.PerPeerRequests }, 1, many,
			"Requests of one remote identity that may wait for an answer."),
		intKey("budgets.per_peer_streams", func(c *Config) *int { return &c.Budgets.PerPeerStreams }, 1, many,
			"Streams one remote identity may have open."),
		intKey("budgets.per_peer_unread_messages", func(c *Config) *int { return &c.Budgets.PerPeerUnreadMessages }, 1, many,
			"Messages of one remote identity that may lie unread in an inbox."),
		sizeKey("budgets.per_peer_unread_bytes", func(c *Config) *Size { return &c.Budgets.PerPeerUnreadBytes }, MiB, TiB,
			"Bytes of one remote identity's messages that may lie unread in an inbox."),
		intKey("budgets.per_peer_stored_messages", func(c *Config) *int { return &c.Budgets.PerPeerStoredMessages }, 1, many,
			"Messages of one remote identity that may lie on the disk for one identity here, in any state, as with budgets.per_uid_stored_messages."),
		sizeKey("budgets.node_message_bytes", func(c *Config) *Size { return &c.Budgets.NodeMessageBytes }, MiB, 1024*TiB,
			"Bytes of all users' messages together, sent and received, that may lie on the disk."),
		intKey("budgets.per_peer_refused_opens", func(c *Config) *int { return &c.Budgets.PerPeerRefusedOpens }, 1, 1<<16,
			"Refused requests per second of one stranger, or of one who is blocked, after which it is not listened to for a while."),
		intKey("budgets.per_node_refused_opens", func(c *Config) *int { return &c.Budgets.PerNodeRefusedOpens }, 1, 1<<16,
			"The same for all of them on one remote node together, since identities cost nothing to make."),
		intKey("budgets.per_address_refused_opens", func(c *Config) *int { return &c.Budgets.PerAddressRefusedOpens }, 1, 1<<16,
			"The same for all of them from one IP address together, since nodes cost nothing to make."),
		sizeKey("budgets.stream_window_initial", func(c *Config) *Size { return &c.Budgets.StreamWindowInitial }, 64*KiB, 64*MiB,
			"Unread bytes of a stream after which its sender waits.").needsRestart(),
		sizeKey("budgets.stream_window_max", func(c *Config) *Size { return &c.Budgets.StreamWindowMax }, 64*KiB, 64*MiB,
			"What that grows to while the reader keeps up; not less than budgets.stream_window_initial.").needsRestart(),
		intKey("budgets.stalled_streams", func(c *Config) *int { return &c.Budgets.StalledStreams }, 1, 4096,
			"Streams of one connection whose readers may have stopped before the oldest of them is reset. Costs up to budgets.stream_window_max of memory each, more if the peer sends in tiny pieces; where all would take more than a quarter of the memory the windows grow less.").needsRestart(),
		intKey("budgets.node_connections", func(c *Config) *int { return &c.Budgets.NodeConnections }, 16, many,
			"Connections to the control socket of all local users together, and as many to other nodes. A change is in force for the first after a reload, for the second after a restart.").needsRestart(),
		sizeKey("budgets.node_buffered_bytes", func(c *Config) *Size { return &c.Budgets.NodeBufferedBytes }, MiB, TiB,
			"What budgets.per_uid_buffered_bytes is about, of all local users together."),
	}
}
