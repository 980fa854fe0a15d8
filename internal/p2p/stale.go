package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// hello is what every libp2p stream begins with (multistream-select 1.0.0).
const hello = "\x13/multistream/1.0.0\n"

const (
	// staleTime is how long an old connection may take to show that it lives
	// once the node has connected anew.
	staleTime = 2 * time.Second
	// movedTime is the same after a change of this machine's links.
	movedTime = 4 * time.Second
)

// probeOthers looks after the older connections to the node of a new one. A
// node that crashed and came back connects anew, while the old connection would
// swallow requests until it times out; anything sent over it is answered with a
// reset at once, unless the node came back elsewhere.
func (t *connTable) probeOthers(fresh *connState) {
	for _, c := range t.list() {
		if c != fresh && c.peer.Node == fresh.peer.Node {
			t.h.tasks.run(func() { c.probe(staleTime, "the node has connected anew, and the old connection answers no more") })
		}
	}
}

// probe asks for a sign of life, and gives the connection up if none comes in
// time.
func (c *connState) probe(limit time.Duration, why string) {
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	defer cancel()
	before, ok := c.traffic()
	if c.greet(ctx) || c.ctx.Err() != nil {
		return
	}
	if <-ctx.Done(); c.ctx.Err() != nil { // it may fail early, as when there is no route
		return
	}
	if now, _ := c.traffic(); !ok || !now.lives(before) {
		c.giveUp(why)
	}
}

// greet opens a stream and waits for the other end's first byte on it; false if
// it has not come when ctx ends.
func (c *connState) greet(ctx context.Context) bool {
	s, err := c.conn.NewStream(network.WithAllowLimitedConn(ctx, "probe"))
	if err != nil {
		return false // it is closed, or full
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if _, err = s.Write([]byte(hello)); err == nil {
		_, err = s.Read(make([]byte, 1))
	}
	return err == nil
}
