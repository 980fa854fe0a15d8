package p2p

import (
	"errors"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/wire"
)

// maxPayloads bounds the payloads a connection's requests hold, in bytes.
const maxPayloads = 16 << 20

// payloadBudget makes the reading of requests wait while too many payloads are
// held for one connection: only the peer that sent them waits.
type payloadBudget struct {
	mu    sync.Mutex
	cond  sync.Cond
	bytes int
	ended bool
}

func (b *payloadBudget) init() { b.cond.L = &b.mu }

// take waits for n bytes; false if the connection ended.
func (b *payloadBudget) take(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.bytes+n > maxPayloads && b.bytes > 0 && !b.ended {
		b.cond.Wait()
	}
	b.bytes += n
	return !b.ended
}

func (b *payloadBudget) give(n int) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes -= n
	b.cond.Broadcast()
}

func (b *payloadBudget) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.cond.Broadcast()
}

var errMemory = errors.New("the memory for requests of peers is used up")

// admit makes room for the payload that f announces, before memory is given to
// it. What it admits must be released, refunded if it could not be read.
func (c *connState) admit(s network.Stream, f *wire.Frame) error {
	n := int(f.PayloadSize)
	if n == 0 {
		return nil
	}
	if !c.payloads.take(n) {
		c.payloads.give(n)
		return errConnGone
	}
	if n > bulky && s.Scope().ReserveMemory(n, network.ReservationPriorityAlways) != nil {
		c.payloads.give(n)
		return errMemory
	}
	return nil
}

func (c *connState) release(s network.Stream, n int) {
	c.payloads.give(n)
	if n > bulky {
		s.Scope().ReleaseMemory(n)
	}
}

// refund takes back what was admitted for a frame that did not arrive whole.
func (c *connState) refund(s network.Stream, f *wire.Frame) {
	if f != nil {
		c.release(s, int(f.PayloadSize))
	}
}
