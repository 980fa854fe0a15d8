package p2p

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// maxRequestStreams is how many request streams a peer may open on one
	// connection; ours opens maxPool.
	maxRequestStreams = 8
	// maxOpening bounds streams of one connection whose first frame is awaited.
	maxOpening = 1024
)

// serveStream serves one stream that a peer opened. The first frame says what
// it is: an Open of a stream, or the first of many requests.
func (h *Host) serveStream(s network.Stream) {
	if !h.tasks.begin() {
		_ = s.Reset()
		return
	}
	defer h.tasks.end()
	c, err := h.conns.get(s.Conn())
	if err != nil {
		_ = s.Reset()
		return
	}
	defer h.conns.forget(c)
	in := newFrameReader(s, h.o.Timing.Header)
	t := newIntake(c, s, in)
	m, ok := t.firstFrame()
	if !ok {
		in.release()
		return
	}
	if m.f.GetOpen().GetKind() == wire.Kind_KIND_STREAM {
		h.serveRaw(c, s, in, &m)
		return
	}
	if a := m.f.GetAborted(); a != nil {
		c.raw.abortedByPeer(streamKey{ours: a.GetYours(), number: m.f.Number}, api.Code(a.GetCode()))
		_ = s.Close()
	} else {
		h.serveRequests(t, m)
	}
	in.release()
}

// firstFrame reads the frame that must come soon, and resets the stream if it
// does not.
func (t *intake) firstFrame() (incoming, bool) {
	s := t.s
	if !t.c.opening.take(maxOpening) {
		_ = s.ResetWithError(toResetCode(api.CodeOverBudget))
		return incoming{}, false
	}
	defer t.c.opening.give()
	_ = s.SetReadDeadline(time.Now().Add(t.in.limit))
	if err := t.in.wait(); err != nil {
		_ = s.ResetWithError(toResetCode(closeCode(err)))
		return incoming{}, false
	}
	_ = s.SetReadDeadline(time.Time{})
	m, err := t.next()
	if err == nil && m.f.GetReply() == nil {
		return m, true
	}
	_ = s.ResetWithError(toResetCode(closeCode(err)))
	return incoming{}, false
}

// closeCode says why a stream is given up.
func closeCode(err error) api.Code {
	switch {
	case err == nil, errors.Is(err, wire.ErrMalformed):
		return api.CodeBadRequest
	case errors.Is(err, wire.ErrTooLarge):
		return api.CodeTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return api.CodeTimeout
	}
	return api.CodeOf(err)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// serveRaw lets the server answer an Open of a stream.
func (h *Host) serveRaw(c *connState, s network.Stream, in *frameReader, m *incoming) {
	defer m.held.release()
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	out := newFrameWriter(s, h.o.Timing.Write)
	if m.refused != nil {
		finishRaw(ctx, s, out, m, wire.ReplyError(m.refused), nil)
		return
	}
	var raw *rawStream
	gone := watchReset(in, cancel)
	accept := func(r *wire.Reply) (router.Conn, error) {
		if raw != nil {
			return nil, errors.New("p2p: a stream was accepted twice")
		}
		gone.stop()
		if err := ctx.Err(); err != nil {
			return nil, ctxError(ctx, "the stream was not accepted")
		}
		// Before the peer knows of it, and may abort it.
		raw = newRawStream(s, streamKey{number: m.f.Number}, in.br, &c.raw)
		if err := writeReply(ctx, out, m.f.Number, r, nil, &m.held); err != nil {
			return nil, c.streamError(err)
		}
		proven(s)
		c.use()
		m.held.release() // else it would count for as long as the stream lasts
		_ = s.SetWriteDeadline(time.Time{})
		return raw, nil
	}
	reply, answer := c.serve(ctx, m, accept)
	if raw != nil {
		_ = raw.Close() // a handler that returns is done with it
		return
	}
	gone.stop()
	if reply == nil {
		reply = wire.ReplyError(api.Errorf(api.CodeInternal, "the stream was not answered"))
	}
	if !m.held.answer(len(answer)) {
		answer = nil // a refusal says enough without
	}
	finishRaw(ctx, s, out, m, reply, answer)
}

// finishRaw ends a stream that was not accepted.
func finishRaw(ctx context.Context, s network.Stream, out *frameWriter, m *incoming, reply *wire.Reply, answer []byte) {
	if ctx.Err() != nil || writeReply(ctx, out, m.f.Number, reply, answer, &m.held) != nil {
		_ = s.ResetWithError(toResetCode(api.CodeAborted))
		return
	}
	_ = s.CloseWrite()
	_ = s.Close()
}

// resetWatch waits for the peer to give up a stream that is not accepted yet.
type resetWatch struct {
	in   *frameReader
	done chan struct{}
	once sync.Once
}

func watchReset(in *frameReader, gone func()) *resetWatch {
	w := &resetWatch{in: in, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		// Data or a clean end before the answer is allowed, if odd.
		if err := in.wait(); err != nil && !isTimeout(err) && !streamEnded(err) {
			gone()
		}
	}()
	return w
}

// stop ends the watch; afterwards the stream can be read.
func (w *resetWatch) stop() {
	w.once.Do(func() {
		_ = w.in.s.SetReadDeadline(time.Unix(1, 0))
		<-w.done
		_ = w.in.s.SetReadDeadline(time.Time{})
	})
}

// writeReply answers the request that holds held; nil if it holds nothing.
func writeReply(ctx context.Context, out *frameWriter, number uint64, r *wire.Reply, payload []byte, held *holding) error {
	f := &wire.Frame{Number: number, Body: &wire.Frame_Reply{Reply: r}}
	_, err := out.writeAnswer(ctx, f, payload, held)
	if !errors.Is(err, wire.ErrTooLarge) { // of which nothing was written
		return err
	}
	f.Body = &wire.Frame_Reply{Reply: wire.ReplyError(api.Errorf(api.CodeTooLarge, "the answer is longer than a frame may be"))}
	_, err = out.write(ctx, f, nil)
	return err
}
