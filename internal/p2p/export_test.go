package p2p

import (
	"net"

	"github.com/quic-go/quic-go"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// Patient is a socket as QUIC has it.
func Patient(c *net.UDPConn) quic.OOBCapablePacketConn { return patientConn{c} }

// FromResetCode is for tests of what a peer sees.
var FromResetCode = fromResetCode

// Connections counts all connections, also those that Peers takes together.
func (h *Host) Connections() int { return len(h.conns.list()) }

// MemoryLimit is for tests with the memory of other machines.
var MemoryLimit = memoryLimit

// Defaults are the options in force.
func (o Options) Defaults() (Options, error) { return o.withDefaults() }

// Nodes counts the nodes that are remembered.
func (h *Host) Nodes() int { return len(h.nodes.list()) }

// Trusts tells whether a node is no stranger.
func (h *Host) Trusts(node identity.ID) bool { return h.trusted(node) }

// CloseNode closes all connections to a node.
func (h *Host) CloseNode(node identity.ID) { _ = h.sw.ClosePeer(node.PeerID()) }

// Unproven counts the streams of strangers of which nothing was read.
func (h *Host) Unproven() int {
	h.strangers.mu.Lock()
	defer h.strangers.mu.Unlock()
	return h.strangers.unproven
}
