package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/wire"
)

// frameWriter lets many goroutines write frames to one stream, one at a time.
type frameWriter struct {
	s     network.Stream
	limit time.Duration // for one frame to be taken by the connection
	turn  chan struct{} // a lock that can be waited for with a context
	until time.Time     // the deadline that is set
}

func newFrameWriter(s network.Stream, limit time.Duration) *frameWriter {
	return &frameWriter{s: s, limit: limit, turn: make(chan struct{}, 1)}
}

// write sends one frame. started tells whether any of it may have been sent,
// complete whether all of it was; a frame that is started and not complete
// leaves the stream unusable. ctx is for the wait and bounds the write.
func (w *frameWriter) write(ctx context.Context, f *wire.Frame, payload []byte) (started, complete bool, err error) {
	select {
	case w.turn <- struct{}{}:
	default:
		select {
		case w.turn <- struct{}{}:
		case <-ctx.Done():
			return false, false, ctx.Err()
		}
	}
	defer func() { <-w.turn }()
	w.deadline(ctx, len(payload))
	c := countingWriter{s: w.s}
	complete, err = wire.WriteFrame(&c, f, payload)
	return c.n > 0, complete, err
}

// deadline moves the write deadline on, seldom: it is exact only where ctx ends
// sooner. A large payload gets the limit once more for each 256 KiB.
func (w *frameWriter) deadline(ctx context.Context, size int) {
	now := time.Now()
	want := now.Add(w.limit * time.Duration(1+size>>18))
	if d, ok := ctx.Deadline(); ok && d.Before(want) {
		want = d
	}
	if w.until.After(want) || w.until.Before(now.Add(w.limit/2)) {
		w.until = want
		_ = w.s.SetWriteDeadline(want)
	}
}

type countingWriter struct {
	s network.Stream
	n int
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.s.Write(p)
	c.n += n
	return n, err
}
