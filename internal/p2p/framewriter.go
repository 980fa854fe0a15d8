package p2p

import (
	"bytes"
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/wire"
)

// frameWriter lets many goroutines write frames to one stream, one at a time.
// Half a frame would break the stream for everybody on it, hence a frame that
// is begun is finished, for as long as the stream's own limit allows.
type frameWriter struct {
	s     network.Stream
	limit time.Duration // for one frame to be taken by the connection
	turn  chan struct{} // a lock that can be waited for with a context
	until time.Time     // the deadline that is set
	begun bool          // a frame was written
	cur   frameWrite    // of whoever has the turn
}

func newFrameWriter(s network.Stream, limit time.Duration) *frameWriter {
	return &frameWriter{s: s, limit: limit, turn: make(chan struct{}, 1)}
}

// written tells what became of a frame.
type written struct {
	started  bool // some of it may have been sent
	complete bool // all of it was
	// rest must be called, if not nil: it sends what the caller of writeSoon had
	// no time to wait for. Others wait for their turn until it returns.
	rest func() error
}

// write sends one frame. A frame that is started and not complete leaves the
// stream unusable. ctx is for the wait until the frame is begun.
func (w *frameWriter) write(ctx context.Context, f *wire.Frame, payload []byte) (written, error) {
	return w.send(ctx, time.Time{}, f, payload, nil)
}

// writeAnswer is write for the answer to a request, whose place is given back
// before any of it leaves.
func (w *frameWriter) writeAnswer(ctx context.Context, f *wire.Frame, payload []byte, held *holding) (written, error) {
	return w.send(ctx, time.Time{}, f, payload, held)
}

// writeSoon is write for those who leave at the deadline of ctx. A frame that
// is not begun by then is not sent.
func (w *frameWriter) writeSoon(ctx context.Context, f *wire.Frame, payload []byte) (written, error) {
	leave, _ := ctx.Deadline()
	return w.send(ctx, leave, f, payload, nil)
}

// end writes nothing more, once it is its turn.
func (w *frameWriter) end(ctx context.Context) error {
	if err := w.await(ctx); err != nil {
		return err
	}
	defer func() { <-w.turn }()
	return w.s.CloseWrite()
}

// await takes the turn.
func (w *frameWriter) await(ctx context.Context) error {
	select {
	case w.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case w.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *frameWriter) send(ctx context.Context, leave time.Time, f *wire.Frame, payload []byte, held *holding) (out written, err error) {
	if err := w.await(ctx); err != nil {
		return out, err
	}
	held.leave() // not before: what waits for its turn costs memory
	if !w.begun {
		// With the first one go libp2p's own words, which it cannot go on with
		// once they were cut short.
		w.begun, leave = true, time.Time{}
	}
	// A large payload gets the limit once more for each 256 KiB.
	now := time.Now()
	w.cur = frameWrite{w: w, begin: now, end: now.Add(w.limit * time.Duration(1+len(payload)>>18)), leave: leave}
	fw := &w.cur
	out.complete, err = wire.WriteFrame(fw, f, payload)
	out.started = fw.n > 0 // read while the turn is ours
	if fw.rest == nil {
		<-w.turn
		return out, err
	}
	out.rest = func() error {
		defer func() { <-w.turn }()
		return fw.finish()
	}
	return out, err
}

// frameWrite is the writing of one frame.
type frameWrite struct {
	w     *frameWriter
	begin time.Time // about now
	end   time.Time // then the stream is given up
	leave time.Time // then the caller leaves; zero if it stays
	n     int       // bytes sent
	rest  [][]byte  // what is left when the caller leaves
}

// Write sends p or, from the time to leave on, keeps it in rest. It fails with
// context.DeadlineExceeded if that comes before anything was sent.
func (fw *frameWrite) Write(p []byte) (int, error) {
	if fw.rest != nil {
		fw.rest = append(fw.rest, bytes.Clone(p))
		return len(p), nil
	}
	now := fw.begin
	for done := 0; ; {
		fw.moveDeadline(now)
		n, err := fw.w.s.Write(p[done:])
		done += n
		fw.n += n
		if err == nil {
			return done, nil
		}
		now = time.Now()
		switch {
		case !isTimeout(err) || now.Before(fw.w.until) || !now.Before(fw.end):
			return done, err // not by the deadline that was set, or the last one
		case fw.leave.IsZero() || now.Before(fw.leave):
			continue
		case fw.n == 0:
			return 0, context.DeadlineExceeded
		}
		fw.rest = append(fw.rest, bytes.Clone(p[done:]))
		return len(p), nil
	}
}

// moveDeadline sets the stream's deadline, seldom: one that is due earlier than
// it need be only costs another Write.
func (fw *frameWrite) moveDeadline(now time.Time) {
	want := fw.end
	if !fw.leave.IsZero() && fw.leave.Before(want) {
		want = fw.leave
	}
	w := fw.w
	if w.until.After(want) || w.until.Before(now.Add(want.Sub(now)/2)) {
		w.until = want
		_ = w.s.SetWriteDeadline(want)
	}
}

// finish sends the rest.
func (fw *frameWrite) finish() error {
	rest := fw.rest
	fw.begin, fw.rest, fw.leave = time.Now(), nil, time.Time{}
	for _, p := range rest {
		if _, err := fw.Write(p); err != nil {
			return err
		}
	}
	return nil
}
