package p2p

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// streamKey names a raw stream of a connection: the number of its Open.
type streamKey struct {
	ours   bool // opened on this side
	number uint64
}

const (
	// hello is what every libp2p stream begins with (multistream-select 1.0.0).
	hello = "\x13/multistream/1.0.0\n"
	// prelude is how a stream for our protocol begins.
	prelude = hello + "\x0d" + string(Protocol) + "\n"
)

// tellAborted tells the peer that this side reset a raw stream after it had ended
// its own direction. The transports do not: QUIC has no RESET_STREAM after the end
// was acknowledged, and a STOP_SENDING, like yamux' reset, shows only to who
// writes. It is told on a stream of its own, because it is rare, and because a
// node that does not know of it resets that stream only.
func (c *connState) tellAborted(k streamKey, code api.Code) {
	f := &wire.Frame{Number: k.number, Body: &wire.Frame_Aborted{Aborted: &wire.Aborted{Code: string(code), Yours: !k.ours}}}
	b := bytes.NewBufferString(prelude)
	if _, err := wire.WriteFrame(b, f, nil); err != nil {
		return
	}
	h := c.table.h
	h.tasks.run(func() {
		ctx, cancel := context.WithTimeout(c.ctx, h.o.Timing.Header)
		defer cancel()
		s, err := c.conn.NewStream(network.WithAllowLimitedConn(ctx, "aborted"))
		if err != nil {
			return // it is closed, which tells it too, or has no room
		}
		defer func() { _ = s.Reset() }()
		stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
		defer stop()
		_ = s.SetDeadline(time.Now().Add(h.o.Timing.Header))
		if _, err := s.Write(b.Bytes()); err == nil && s.CloseWrite() == nil {
			_, _ = io.Copy(io.Discard, s) // until the peer has read it
		}
	})
}

// abortedByPeer ends a raw stream of which the peer tells that it aborted it; one
// that has ended is not there any more.
func (r *rawStreams) abortedByPeer(k streamKey, code api.Code) {
	r.mu.Lock()
	c := r.byKey[k]
	r.mu.Unlock()
	if c == nil {
		return
	}
	n := toResetCode(code)
	code = fromResetCode(n) // one that may be told
	e := api.Errorf(code, "the stream was reset by the peer: %s", codeText(code))
	if c.reset.CompareAndSwap(nil, e) {
		c.finish(func() { _ = c.s.ResetWithError(n) })
		c.abort(e)
	}
}
