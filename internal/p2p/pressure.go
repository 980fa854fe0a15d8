package p2p

import (
	"cmp"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// fewUnread is how many first windows of unread data are no reason to close anything.
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
// more than half of it is in use, the connection that holds most, in streams that
// nobody reads and in requests, is closed, one at a time.
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

// hoarder is a connection that may hold much.
type hoarder struct {
	c        *connState
	requests int64 // bytes that its requests hold
	silent   int   // streams that have sent no first frame
	idle     []*rawStream
	most     int64 // bytes that it can hold at most
}

// relieve closes the connection that holds most, if one holds more than a few
// windows: else it is not them who take the memory. Whether data waits in a stream
// costs a look, so those that can hold most are looked at first, others by chance.
func (h *Host) relieve() bool {
	var all []hoarder
	for _, c := range h.conns.list() {
		if s := c.hoards(); s.most > fewUnread*h.o.WindowInitial {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b hoarder) int { return cmp.Compare(b.most, a.most) })
	var worst hoarder
	unread, holds := 0, fewUnread*h.o.WindowInitial
	if len(all) > connsPerTick {
		rest := all[connsPerTick/2:]
		rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
		all = all[:connsPerTick]
	}
	for _, s := range all {
		if s.most <= holds {
			continue
		}
		n := s.unread()
		if held := s.requests + int64(n)*h.o.WindowInitial; held > holds {
			worst, unread, holds = s, n, held
		}
	}
	if worst.c == nil {
		return false
	}
	h.o.Log.Warn("memory is short: closed the connection of a node that holds most of it",
		"peer", worst.c.peer.Node.String(), "unread_streams", unread, "request_bytes", worst.requests)
	_ = worst.c.conn.CloseWithError(network.ConnResourceLimitExceeded)
	return true
}

const (
	// looksPerConn is how many streams of a connection are looked at, chosen by
	// chance, to tell how many of them are unread. Each look takes up to peekTime,
	// those of one connection are made at once.
	looksPerConn = 64
	connsPerTick = 16
)

// hoards tells what c may hold, without a look.
func (c *connState) hoards() hoarder {
	s := hoarder{c: c, requests: c.budget.held()}
	s.silent = max(0, c.conn.Stat().NumStreams-c.raw.count()-2*maxRequestStreams) // those of requests are read
	s.idle = c.raw.idle(time.Now().Add(-c.raw.period()).UnixNano())
	s.most = s.requests + int64(s.silent+len(s.idle))*c.table.h.o.WindowInitial
	return s
}

// unread estimates how many streams' data waits for a reader.
func (s hoarder) unread() int {
	looked := s.idle
	if len(looked) > looksPerConn {
		rand.Shuffle(len(looked), func(i, j int) { looked[i], looked[j] = looked[j], looked[i] })
		looked = looked[:looksPerConn]
	}
	var waits atomic.Int64
	var all sync.WaitGroup
	for _, c := range looked {
		all.Go(func() {
			if c.dataWaits() {
				waits.Add(1)
			}
		})
	}
	all.Wait()
	if len(looked) == 0 {
		return s.silent
	}
	return s.silent + int(waits.Load())*len(s.idle)/len(looked)
}

// heapInUse is what was alive at the last collection of garbage, in bytes.
func heapInUse() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	if metrics.Read(s); s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return int64(s[0].Value.Uint64())
}
