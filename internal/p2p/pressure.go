package p2p

import (
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// fewUnread is how many streams without a reader are no reason to close anything.
const fewUnread = 8

// connShare is the part of the memory that the unread bytes of one connection may
// take, by the windows: a small machine has smaller ones.
//
// What a window costs is more than its bytes, since the transports keep each frame
// on its own until it is read. Measured, for windows filled by a contact's node
// over QUIC: 1.2 times in full packets, 2.6 times in frames of 130 bytes, 10 times
// and more when each frame holds a few bytes; hence the watch below.
const connShare = 4

// fitMemory bounds the windows, then the number of stalled streams, so that
// StalledStreams times WindowMax is within the share of a connection.
func (o *Options) fitMemory() {
	share := o.MemoryLimit / connShare
	o.StalledStreams = int(min(int64(o.StalledStreams), max(share/o.WindowInitial, strangerStalled)))
	o.WindowMax = max(o.WindowInitial, min(o.WindowMax, share/int64(o.StalledStreams)))
}

// watchMemory keeps those who let data pile up from taking the memory of all: while
// more than half of it is in use, the connection with most streams that nobody
// reads is closed, one at a time.
func (h *Host) watchMemory() {
	tick := time.NewTicker(h.o.Timing.Memory)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-tick.C:
		}
		if h.o.HeapInUse() > h.o.MemoryLimit/2 && h.relieve() {
			runtime.GC() // so that what is in use is known before another is closed
		}
	}
}

// relieve closes the connection with most unread streams, if one has more than a
// few: else it is not them who take the memory.
func (h *Host) relieve() bool {
	var worst *connState
	most := fewUnread
	for _, c := range h.conns.list() {
		if n := c.unread(); n > most {
			worst, most = c, n
		}
	}
	if worst == nil {
		return false
	}
	h.o.Log.Warn("memory is short: closed the connection of a node with streams that nobody reads",
		"peer", worst.peer.Node.String(), "streams", most)
	_ = worst.conn.CloseWithError(network.ConnResourceLimitExceeded)
	return true
}

// unread counts the streams of c whose data waits for a reader, those included
// that have sent no first frame.
func (c *connState) unread() int {
	n := max(0, c.conn.Stat().NumStreams-c.raw.count()-2*maxRequestStreams) // those of requests are read
	for _, s := range c.raw.idle(time.Now().Add(-c.raw.period()).UnixNano()) {
		if s.dataWaits() {
			n++
		}
	}
	return n
}

// heapInUse is what was alive at the last collection of garbage, in bytes.
func heapInUse() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	if metrics.Read(s); s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return int64(s[0].Value.Uint64())
}
