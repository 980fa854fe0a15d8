package p2p

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"

	"github.com/fastn-stack/fastnd/internal/identity"
)

// maxEvents bounds events that wait for OnEvent; the oldest are dropped.
const maxEvents = 4096

// eventQueue hands events over without ever making the network wait.
type eventQueue struct {
	deliver func(Event)

	mu     sync.Mutex
	cond   sync.Cond
	list   []Event
	closed bool
}

func newEventQueue(deliver func(Event)) *eventQueue {
	q := &eventQueue{deliver: deliver}
	q.cond.L = &q.mu
	return q
}

func (q *eventQueue) add(e Event) {
	if q.deliver == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == maxEvents {
		q.list = q.list[1:]
	}
	q.list = append(q.list, e)
	q.cond.Signal()
}

// run delivers events until close, and then those that are left.
func (q *eventQueue) run() {
	for {
		q.mu.Lock()
		for len(q.list) == 0 && !q.closed {
			q.cond.Wait()
		}
		list := q.list
		q.list = nil
		q.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, e := range list {
			q.deliver(e)
		}
	}
}

func (q *eventQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.cond.Signal()
}

// watchIdentify tells the address book what nodes say of themselves.
func (h *Host) watchIdentify() error {
	if h.o.Book == nil {
		return nil
	}
	sub, err := h.bus.Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.Name("fastn"), eventbus.BufSize(256))
	if err != nil {
		return err
	}
	h.tasks.run(func() {
		defer sub.Close()
		for {
			select {
			case <-h.ctx.Done():
				return
			case e, ok := <-sub.Out():
				if !ok {
					return
				}
				h.learned(e.(event.EvtPeerIdentificationCompleted))
			}
		}
	})
	return nil
}

func (h *Host) learned(e event.EvtPeerIdentificationCompleted) {
	node, err := identity.FromPeerID(e.Peer)
	if err != nil {
		return
	}
	local := ipOf(e.Conn.RemoteMultiaddr()).IsLoopback()
	if addrs := addrStrings(e.ListenAddrs, e.Peer, local); len(addrs) > 0 {
		h.o.Book.Learned(node, addrs)
	}
}
