package p2p

// FromResetCode is for tests of what a peer sees.
var FromResetCode = fromResetCode

// Connections counts all connections, also those that Peers takes together.
func (h *Host) Connections() int { return len(h.conns.list()) }

// IsTimeout is for tests that want no answer.
var IsTimeout = isTimeout

// MemoryLimit is for tests with the memory of other machines.
var MemoryLimit = memoryLimit

// Defaults are the options in force.
func (o Options) Defaults() (Options, error) { return o.withDefaults() }
