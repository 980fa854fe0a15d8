package p2p_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// On a small machine the windows of all stalled streams are within a quarter of
// its memory; on a large one they are what was asked for.
func TestWindowsFitTheMemory(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ memory, initial, max, streams, wantMax, wantStreams int64 }{
		{2048 * mib, 0, 0, 0, 4 * mib, 128},
		{1024 * mib, 0, 0, 0, 2 * mib, 128},
		{512 * mib, 0, 0, 0, 1 * mib, 128},
		{128 * mib, 0, 0, 0, 1 * mib, 32},
		{1 * mib, 0, 0, 0, 1 * mib, 4},
		{2048 * mib, 64 * mib, 64 * mib, 4096, 64 * mib, 8},
		{2048 * mib, 64 << 10, 4 * mib, 4096, 128 << 10, 4096},
	} {
		o, err := p2p.Options{Key: p2ptest.Key(t), TCP: true, MemoryLimit: c.memory,
			WindowInitial: c.initial, WindowMax: c.max, StalledStreams: int(c.streams)}.Defaults()
		if err != nil {
			t.Fatal(err)
		}
		if o.WindowMax != c.wantMax || int64(o.StalledStreams) != c.wantStreams {
			t.Errorf("%+v: %d streams of at most %d bytes", c, o.StalledStreams, o.WindowMax)
		}
	}
}

// While memory is short the connection with most unread streams is closed, and
// none that has only a few.
func TestShortMemoryClosesTheWorst(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		var log logBook
		var inUse atomic.Int64
		acc := newAccepter(t)
		book := p2ptest.NewBook()
		h := p2ptest.New(t, acc, only, smallWindows, func(o *p2p.Options) {
			o.MemoryLimit, o.HeapInUse = 1<<30, inUse.Load
			o.Timing.Stalled, o.Timing.Memory = 50*time.Millisecond, 20*time.Millisecond
			o.Log = log.logger()
		})
		book.Add(h.Node(), h.Addrs()...)
		greedy := p2ptest.New(t, acc, only, smallWindows, func(o *p2p.Options) { o.Book = book })
		modest := p2ptest.New(t, acc, only, smallWindows, func(o *p2p.Options) { o.Book = book })
		many, _ := stall(t, greedy, h, acc, 20, stallWindow)
		few, _ := stall(t, modest, h, acc, 3, stallWindow)
		inUse.Store(1<<29 + 1)
		ended := make(chan error, len(many))
		for _, c := range many {
			go func() {
				_, err := c.Read(make([]byte, 1))
				ended <- err
			}()
		}
		for range many {
			wantCode(t, recv(t, ended, "end of a greedy node's stream"), api.CodeAborted)
		}
		for range 50 { // each longer than a look at the memory
			echoed(t, openProto(t, modest, h, "Echo"), 1<<20)
		}
		for i, c := range few {
			if n, err := readSoon(c); n != 0 || api.CodeOf(err) != api.CodeInternal {
				t.Errorf("stream %d of a node with few was touched: %v", i, err)
			}
		}
		if got := log.String(); !strings.Contains(got, "peer="+greedy.Node().String()) || strings.Contains(got, "peer="+modest.Node().String()) {
			t.Errorf("the log does not name the greedy node, and only that: %s", got)
		}
		inUse.Store(0)
		call(t, greedy, h, nil) // it may come back
	})
}

// What requests hold counts as what streams do.
func TestShortMemoryClosesWhoHoldsRequests(t *testing.T) {
	transports(t, func(t *testing.T, only p2ptest.Option) {
		var log logBook
		var inUse atomic.Int64
		g := newGate()
		book := p2ptest.NewBook()
		h := p2ptest.New(t, g, only, smallWindows, func(o *p2p.Options) {
			o.MemoryLimit, o.HeapInUse = 1<<30, inUse.Load
			o.Timing.Memory = 20 * time.Millisecond
			o.Log = log.logger()
		})
		book.Add(h.Node(), h.Addrs()...)
		greedy := p2ptest.New(t, g, only, func(o *p2p.Options) { o.Book = book })
		modest := p2ptest.New(t, g, only, func(o *p2p.Options) { o.Book = book })
		ended := make(chan error, 100)
		held := string(padded("hold ", 30_000))
		hold := func(from *p2p.Host, n int) { // of 30,000 bytes; 8 windows are 2 MiB
			for range n {
				go func() {
					_, _, err := from.Request(timeout(t, 60*time.Second), h.Node(), p2ptest.Open(wire.Kind_KIND_CALL), []byte(held))
					ended <- err
				}()
			}
			for range n {
				recv(t, g.entered, "request")
			}
		}
		hold(modest, 10)
		hold(greedy, 80)
		inUse.Store(1<<29 + 1)
		for range 80 {
			wantCode(t, recv(t, ended, "end of a greedy node's request"), api.CodeOutcomeUnknown)
		}
		g.release(held[len("hold "):])
		for range 10 {
			if err := recv(t, ended, "answer"); err != nil {
				t.Error(err)
			}
		}
		if got := log.String(); !strings.Contains(got, "peer="+greedy.Node().String()) || strings.Contains(got, "peer="+modest.Node().String()) {
			t.Errorf("the log does not name the greedy node, and only that: %s", got)
		}
	})
}
