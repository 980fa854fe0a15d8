package p2p

import (
	"hash/maphash"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// maxPayloads bounds what a connection's requests hold, in bytes: payloads,
	// and answers until they are written. Beyond it no request is taken.
	maxPayloads = 64 << 20
	// senderShare is how much of it one sender may hold, so that four greedy
	// ones are needed before others are refused.
	senderShare = maxPayloads / 4
	// maxAnswers bounds the same where requests taken before have answers that
	// go beyond it; then answers are dropped.
	maxAnswers = 4 * maxPayloads
)

// budget counts what the requests of one connection hold. All users of the
// other machine share the connection and its streams, so that nothing here
// waits: what is too much is refused.
type budget struct {
	mu       sync.Mutex
	requests int
	bytes    int
	capped   int            // the same, but no sender counts for more than its share
	senders  map[uint64]int // bytes by sender
}

func (b *budget) init() { b.senders = make(map[uint64]int) }

// limits are those of a budget.
type limits struct{ requests, bytes, share, answers int }

// limits depend on whose connection it is. Strangers have no share for each
// sender, because a node can make as many as it likes.
func (c *connState) limits(stranger bool) limits {
	most := c.table.h.o.Timing.RequestCap
	if stranger {
		return limits{min(strangerRequests, most), strangerPayloads, strangerPayloads, strangerAnswers}
	}
	return limits{most, maxPayloads, senderShare, maxAnswers}
}

// take counts one more request; with an error it was not.
func (b *budget) take(l limits, sender uint64, n int) *api.Error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.requests >= l.requests:
		return overBudget("requests of your node")
	case b.senders[sender]+n > l.share:
		return overBudget("payloads of your requests and their answers")
	case b.capped+n > l.bytes:
		return overBudget("payloads of your node's requests and their answers")
	}
	b.requests++
	b.add(sender, n)
	return nil
}

// leave ends a request; what it holds stays.
func (b *budget) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests--
}

// takeAnswer counts the answer of a request that was taken.
func (b *budget) takeAnswer(l limits, sender uint64, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes+n > l.answers {
		return false
	}
	b.add(sender, n)
	return true
}

// held is what the requests hold, in bytes.
func (b *budget) held() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(b.bytes)
}

func (b *budget) give(sender uint64, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(sender, -n)
}

func (b *budget) add(sender uint64, n int) {
	if n == 0 {
		return
	}
	before := b.senders[sender]
	b.bytes += n
	b.capped += min(before+n, senderShare) - min(before, senderShare)
	if b.senders[sender] = before + n; before+n == 0 {
		delete(b.senders, sender)
	}
}

func overBudget(what string) *api.Error {
	return api.Errorf(api.CodeOverBudget, "over budget: too many %s are in flight on the peer's side", what).
		WithHint("wait for answers, then repeat what was refused")
}

// holding is what one request holds of its connection's budget: a place, and
// bytes, first those of its payload, then those of its answer. The zero value
// holds nothing.
type holding struct {
	c        *connState
	scope    network.StreamScope
	sender   uint64
	place    bool
	bytes    int
	reserved int // of these, at the resource manager
	strange  int // of these, in what strangers hold together
}

// hold counts a request with the payload that it announces, before memory is
// given to that. With an error h holds nothing.
func (c *connState) hold(h *holding, s network.Stream, f *wire.Frame) *api.Error {
	from, counts := senderOf(f)
	if !counts {
		return nil
	}
	stranger := !c.table.h.trusted(c.peer.Node)
	sender, n := maphash.Bytes(c.table.seed, from), int(f.PayloadSize)
	if err := c.budget.take(c.limits(stranger), sender, n); err != nil {
		return err
	}
	*h = holding{c: c, scope: s.Scope(), sender: sender, place: true, bytes: n}
	if !h.reserve(stranger, n) {
		h.release()
		return overBudget("payloads of all nodes' requests")
	}
	return nil
}

// answer counts the answer to the request, instead of the payload. It is held
// until it is written: a peer decides by how fast it reads how long that is. If
// it is false, there is no room for it.
func (h *holding) answer(n int) bool {
	if h.c == nil {
		return true
	}
	h.drop()
	if n == 0 {
		return true
	}
	stranger := !h.c.table.h.trusted(h.c.peer.Node)
	if !h.c.budget.takeAnswer(h.c.limits(stranger), h.sender, n) {
		return false
	}
	h.bytes = n
	return h.reserve(stranger, n)
}

// answerDropped is what is answered instead.
func answerDropped() *wire.Reply {
	return wire.ReplyError(api.Errorf(api.CodeOutcomeUnknown, "the answer was dropped: over budget: too many answers to your node wait to be sent on the peer's side").
		WithHint("find out before you repeat what must not happen twice"))
}

// reserve counts n bytes where all connections are counted.
func (h *holding) reserve(stranger bool, n int) bool {
	if stranger {
		if !h.c.table.h.strangers.takePayload(n) {
			return false
		}
		h.strange = n
	}
	if n > bulky {
		if h.scope.ReserveMemory(n, network.ReservationPriorityAlways) != nil {
			return false
		}
		h.reserved = n
	}
	return true
}

// senderOf gives what tells senders apart: their delegation, which is opaque
// here. Whatever may have a payload or wants an answer counts.
func senderOf(f *wire.Frame) (from []byte, counts bool) {
	switch b := f.Body.(type) {
	case *wire.Frame_Open:
		return b.Open.From, true
	case *wire.Frame_Whois:
		return b.Whois.From, true
	case *wire.Frame_Redeem:
		return b.Redeem.From, true
	case *wire.Frame_Deliver:
		return b.Deliver.From, true
	case *wire.Frame_Available:
		return b.Available.From, true
	case *wire.Frame_Cancel, *wire.Frame_Reply, *wire.Frame_Aborted:
		return nil, false
	}
	return nil, true // none that is known here is of another kind
}

// leave gives the place back: the request is answered as soon as the bytes leave,
// and whoever has an answer may send the next request. Repeatable; h may be nil.
func (h *holding) leave() {
	if h != nil && h.place {
		h.place = false
		h.c.budget.leave()
	}
}

// drop gives the bytes back.
func (h *holding) drop() {
	if h.bytes == 0 {
		return
	}
	h.c.budget.give(h.sender, h.bytes)
	if h.strange > 0 {
		h.c.table.h.strangers.givePayload(h.strange)
	}
	if h.reserved > 0 {
		h.scope.ReleaseMemory(h.reserved)
	}
	h.bytes, h.strange, h.reserved = 0, 0, 0
}

// release gives back what h holds. Repeatable.
func (h *holding) release() {
	if h.c == nil {
		return
	}
	h.leave()
	h.drop()
	*h = holding{}
}

// intake reads the requests of one stream and counts what they hold.
type intake struct {
	c    *connState
	s    network.Stream
	in   *frameReader
	held holding // by the frame being read
}

func newIntake(c *connState, s network.Stream, in *frameReader) *intake {
	t := &intake{c: c, s: s, in: in}
	in.admit = func(f *wire.Frame) *api.Error { return c.hold(&t.held, s, f) }
	return t
}

// incoming is a frame that a peer sent. If it is refused its payload was
// discarded and it holds nothing; else held must be released.
type incoming struct {
	f       *wire.Frame
	payload []byte
	held    holding
	refused *api.Error
}

func (t *intake) next() (m incoming, err error) {
	m.f, m.payload, m.refused, err = t.in.next()
	m.held, t.held = t.held, holding{}
	if err != nil {
		m.held.release()
	}
	return m, err
}
