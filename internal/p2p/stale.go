package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// hello is what every libp2p stream begins with (multistream-select 1.0.0).
const hello = "\x13/multistream/1.0.0\n"

// probeTime is how long an old connection may take to show that it lives.
const probeTime = 5 * time.Second

// probeOthers looks after the older connections to the node of a new one. A
// node that crashed and came back connects anew, while the old connection would
// swallow requests until it times out; anything sent over it is answered with a
// reset at once.
func (t *connTable) probeOthers(fresh *connState) {
	for _, c := range t.list() {
		if c != fresh && c.peer.Node == fresh.peer.Node {
			t.h.tasks.run(func() { c.probe() })
		}
	}
}

func (c *connState) probe() {
	ctx, cancel := context.WithTimeout(c.ctx, probeTime)
	defer cancel()
	s, err := c.conn.NewStream(network.WithAllowLimitedConn(ctx, "probe"))
	if err != nil {
		return // it is closed, or full: then it lives
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	_ = s.SetDeadline(time.Now().Add(probeTime))
	if _, err = s.Write([]byte(hello)); err == nil {
		_, err = s.Read(make([]byte, 1))
	}
	if isTimeout(err) {
		_ = c.conn.Close()
	}
}
