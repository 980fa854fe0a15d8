package p2p

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// paceShare is how many bytes of bulky payloads a sender has under way to a node
// before its further ones wait here. It leaves room, in what the node allows a
// sender, for the answers and for what it has not yet let go of.
const paceShare = senderShare / 4

// pace keeps a burst of bulky requests from being refused by the node that they
// go to. Only a sender's own bulky requests wait for each other, and only while
// some of them are answered: after patience without any the node decides.
type pace struct {
	seed     maphash.Seed
	patience time.Duration

	mu      sync.Mutex
	senders map[uint64]*paced
}

// paced is what one sender has under way.
type paced struct {
	head    chan struct{} // a lock: whoever has it is the next to go
	users   int           // that are under way or wait
	bytes   int
	moved   time.Time     // when a request last ended
	changed chan struct{} // closed, and replaced, when one ends
}

func (p *pace) init(patience time.Duration) {
	p.seed = maphash.MakeSeed()
	p.patience = patience
	p.senders = make(map[uint64]*paced)
}

// enter waits for the turn of a request of size bytes; leave must be called when
// it is over, unless there is an error.
func (p *pace) enter(ctx context.Context, from []byte, size int) (leave func(), _ *api.Error) {
	key := maphash.Bytes(p.seed, from)
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.senders[key]
	if s == nil {
		s = &paced{head: make(chan struct{}, 1), moved: time.Now(), changed: make(chan struct{})}
		p.senders[key] = s
	}
	s.users++
	if err := p.wait(ctx, s, size); err != nil {
		p.drop(key, s)
		return nil, err
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		s.bytes -= size
		s.moved = time.Now()
		close(s.changed)
		s.changed = make(chan struct{})
		p.drop(key, s)
	}, nil
}

// drop forgets a sender that has nothing under way; p.mu is held.
func (p *pace) drop(key uint64, s *paced) {
	if s.users--; s.users == 0 {
		delete(p.senders, key)
	}
}

// wait takes size once there is room for it, or no use in waiting. p.mu is held,
// but not while it waits.
func (p *pace) wait(ctx context.Context, s *paced, size int) *api.Error {
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case s.head <- struct{}{}:
	case <-ctx.Done():
		return ctxError(ctx, "the peer answered none of your other large requests")
	}
	defer func() { <-s.head }()
	for {
		p.mu.Lock()
		room := s.bytes == 0 || s.bytes+size <= paceShare
		left := p.patience - time.Since(s.moved)
		changed := s.changed
		if room || left <= 0 {
			s.bytes += size
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(left):
		case <-ctx.Done():
			return ctxError(ctx, "the peer answered none of your other large requests")
		}
	}
}
