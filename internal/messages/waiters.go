package messages

import (
	"slices"
	"sync"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/lru"
)

// waiters are those who wait for a sent message to become final, or for one to
// arrive.
type waiters struct {
	mu     sync.Mutex
	finals map[sent][]chan Outgoing
	known  *lru.Map[sent, Outgoing] // of those sent lately, without data; more than the disk may know
	inbox  map[identity.ID]chan struct{}
}

// sent names a message of the outbox.
type sent struct {
	from identity.ID
	id   string
}

// sentKept is more than what is usually answered and not recorded.
const sentKept = 8192

func (w *waiters) init() {
	w.finals = make(map[sent][]chan Outgoing)
	w.known = lru.New[sent, Outgoing](sentKept)
	w.inbox = make(map[identity.ID]chan struct{})
}

// add returns a channel that gets the message once it is final.
func (w *waiters) add(from identity.ID, id string) (news <-chan Outgoing, forget func()) {
	ch := make(chan Outgoing, 1)
	k := sent{from, id}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finals[k] = append(w.finals[k], ch)
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		list := slices.DeleteFunc(w.finals[k], func(c chan Outgoing) bool { return c == ch })
		if w.finals[k] = list; len(list) == 0 {
			delete(w.finals, k)
		}
	}
}

// note notes what is known of a message now, for who asks for it.
func (w *waiters) note(m Outgoing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m.Data = nil
	w.known.Put(sent{m.From, m.ID}, m)
}

// latest is what is known of a message, if it was sent lately.
func (w *waiters) latest(from identity.ID, id string) (Outgoing, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known.Peek(sent{from, id})
}

// delivered tells that a message is known to be, recorded or not.
func (w *waiters) delivered(from identity.ID, id string) bool {
	m, ok := w.latest(from, id)
	return ok && m.State == Delivered
}

// forget forgets what is known of a message.
func (w *waiters) forget(from identity.ID, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known.Delete(sent{from, id})
}

// signal tells those who wait for m that it is final. What was delivered stays so.
func (w *waiters) signal(m Outgoing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m.Data = nil
	k := sent{m.From, m.ID}
	if was, ok := w.known.Peek(k); ok && was.State == Delivered {
		m = was
	}
	w.known.Put(k, m)
	for _, ch := range w.finals[sent{m.From, m.ID}] {
		select {
		case ch <- m:
		default: // it has the news already
		}
	}
}

func (w *waiters) arrivals(owner identity.ID) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := w.inbox[owner]
	if ch == nil {
		ch = make(chan struct{})
		w.inbox[owner] = ch
	}
	return ch
}

func (w *waiters) arrived(owner identity.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ch := w.inbox[owner]; ch != nil {
		close(ch)
		delete(w.inbox, owner)
	}
}
