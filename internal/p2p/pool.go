package p2p

import (
	"context"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// maxPool is how many request streams are kept to one node.
	maxPool = 4
	// bulky is a payload that would delay others on its stream, in bytes.
	bulky = 32 << 10
)

// pool holds the request streams to one node. Small requests share the first
// one; bulky ones, and those that find the first busy with a bulky frame, use
// others.
type pool struct {
	node *node
	turn chan struct{} // opens streams one at a time

	mu      sync.Mutex
	streams []*reqStream
	closed  bool
}

func (p *pool) init(n *node) {
	p.node = n
	p.turn = make(chan struct{}, 1)
}

func (p *pool) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.streams) == 0
}

// get gives a stream to send on, opening one if need be.
func (p *pool) get(ctx context.Context, big bool) (*reqStream, *api.Error) {
	if s, good := p.choose(big); good {
		return s, nil
	}
	// All wait for one dial, not for their turn: each is told how it fails.
	if err := p.node.connect(ctx); err != nil {
		return nil, err
	}
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctxError(ctx, "no connection to the peer")
	}
	defer func() { <-p.turn }()
	s, good := p.choose(big)
	if good {
		return s, nil
	}
	fresh, err := p.open(ctx)
	if err != nil && s != nil {
		return s, nil // busy, but there
	}
	return fresh, err
}

// choose picks a stream; good is false if a new one would be better, or if
// there is none. The first stream takes no bulky request while there can be
// others.
func (p *pool) choose(big bool) (s *reqStream, good bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range p.streams {
		if big && i == 0 {
			continue
		}
		if c.bulk.Load() == 0 {
			return c, true
		}
		if s == nil || c.bulk.Load() < s.bulk.Load() {
			s = c
		}
	}
	if s == nil && len(p.streams) > 0 {
		return p.streams[0], false
	}
	return s, len(p.streams) == maxPool
}

// open adds a stream, connecting first.
func (p *pool) open(ctx context.Context) (*reqStream, *api.Error) {
	n := p.node
	st, state, err := n.newStream(ctx)
	if err != nil {
		return nil, err
	}
	r := newReqStream(n.h, p, state, st)
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = st.Reset()
		n.h.conns.forget(state)
		return nil, stopping()
	}
	p.streams = append(p.streams, r)
	p.mu.Unlock()
	if !n.h.tasks.run(r.read) {
		r.fail(errStopping)
		n.h.conns.forget(state)
	}
	return r, nil
}

// newStream opens a stream of our protocol, connecting first. It costs no round
// trip once the peer is known to speak it. Whoever is done with the stream says
// so to connTable.forget.
func (n *node) newStream(ctx context.Context) (network.Stream, *connState, *api.Error) {
	var why error
	for range 2 {
		if err := n.connect(ctx); err != nil {
			return nil, nil, err
		}
		st, err := n.h.bh.NewStream(network.WithNoDial(ctx, "connected"), n.id.PeerID(), Protocol)
		if ctx.Err() != nil && err != nil {
			return nil, nil, ctxError(ctx, "the peer did not answer")
		}
		if err != nil {
			return nil, nil, n.unreachable("the node at the other end opens no stream: "+shortReason(err), nil)
		}
		state, err := n.h.conns.get(st.Conn())
		if err == nil {
			return st, state, nil
		}
		why = api.Errorf(api.CodeAborted, "%v", err)
		_ = st.Reset()
	}
	return nil, nil, n.notSent(why)
}

func (p *pool) remove(r *reqStream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range p.streams {
		if c == r {
			p.streams = append(p.streams[:i:i], p.streams[i+1:]...)
			return
		}
	}
}

func (p *pool) close() {
	p.mu.Lock()
	list := p.streams
	p.closed = true
	p.mu.Unlock()
	for _, r := range list {
		r.fail(errStopping)
	}
}

var errStopping = api.Errorf(api.CodeOutcomeUnknown, "this node is stopping; whether the peer acted on the request is not known")
