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
	f, payload, ok := c.firstFrame(s, in)
	if !ok {
		in.release()
		return
	}
	if f.GetOpen().GetKind() == wire.Kind_KIND_STREAM {
		defer c.release(s, len(payload))
		h.serveRaw(c, s, in, f, payload)
		return
	}
	h.serveRequests(c, s, in, f, payload)
	in.release()
}

// firstFrame reads the frame that must come soon, and resets s if it does not.
func (c *connState) firstFrame(s network.Stream, in *frameReader) (*wire.Frame, []byte, bool) {
	if !c.opening.take(maxOpening) {
		_ = s.ResetWithError(toResetCode(api.CodeOverBudget))
		return nil, nil, false
	}
	defer c.opening.give()
	_ = s.SetReadDeadline(time.Now().Add(in.limit))
	if err := in.wait(); err != nil {
		_ = s.ResetWithError(toResetCode(closeCode(err)))
		return nil, nil, false
	}
	_ = s.SetReadDeadline(time.Time{})
	f, payload, err := in.next(func(f *wire.Frame) error { return c.admit(s, f) })
	if err == nil && f.GetReply() == nil {
		return f, payload, true
	}
	c.refund(s, f)
	_ = s.ResetWithError(toResetCode(closeCode(err)))
	return nil, nil, false
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
	case errors.Is(err, errMemory):
		return api.CodeOverBudget
	}
	return api.CodeOf(err)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// serveRaw lets the server answer an Open of a stream.
func (h *Host) serveRaw(c *connState, s network.Stream, in *frameReader, f *wire.Frame, payload []byte) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	out := newFrameWriter(s, h.o.Timing.Write)
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
		if err := writeReply(ctx, out, f.Number, r, nil); err != nil {
			return nil, streamError(err)
		}
		_ = s.SetWriteDeadline(time.Time{})
		raw = newRawStream(s, in.br, &c.raw)
		return raw, nil
	}
	reply, answer := h.server.ServeFrame(ctx, c.peer, f, payload, accept)
	if raw != nil {
		_ = raw.Close() // a handler that returns is done with it
		return
	}
	gone.stop()
	if reply == nil {
		reply = wire.ReplyError(api.Errorf(api.CodeInternal, "the stream was not answered"))
	}
	if ctx.Err() != nil || writeReply(ctx, out, f.Number, reply, answer) != nil {
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
		if err := in.wait(); err != nil && !isTimeout(err) && streamError(err) == err {
			return
		} else if err != nil && !isTimeout(err) {
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

func writeReply(ctx context.Context, out *frameWriter, number uint64, r *wire.Reply, payload []byte) error {
	f := &wire.Frame{Number: number, Body: &wire.Frame_Reply{Reply: r}}
	started, complete, err := out.write(ctx, f, payload)
	if err == nil || started || complete {
		return err
	}
	if !errors.Is(err, wire.ErrTooLarge) {
		return err
	}
	f.Body = &wire.Frame_Reply{Reply: wire.ReplyError(api.Errorf(api.CodeTooLarge, "the answer is longer than a frame may be"))}
	_, _, err = out.write(ctx, f, nil)
	return err
}

// requestStream is one incoming stream of requests.
type requestStream struct {
	h   *Host
	c   *connState
	s   network.Stream
	in  *frameReader
	out *frameWriter

	ctx      context.Context
	cancel   context.CancelFunc
	slots    chan struct{}
	wg       sync.WaitGroup
	mu       sync.Mutex
	inFlight map[uint64]context.CancelFunc
}

// serveRequests serves a stream of requests until the peer ends it, breaks the
// protocol, or the connection is lost.
func (h *Host) serveRequests(c *connState, s network.Stream, in *frameReader, f *wire.Frame, payload []byte) {
	if !c.requests.take(maxRequestStreams) {
		c.release(s, len(payload))
		_ = s.ResetWithError(toResetCode(api.CodeOverBudget))
		return
	}
	defer c.requests.give()
	r := &requestStream{h: h, c: c, s: s, in: in, out: newFrameWriter(s, h.o.Timing.Write),
		slots: make(chan struct{}, h.o.Timing.RequestCap), inFlight: make(map[uint64]context.CancelFunc)}
	r.ctx, r.cancel = context.WithCancel(c.ctx)
	err := r.loop(f, payload)
	if err == nil { // the peer wants no more answers than those under way
		r.wg.Wait()
		r.cancel()
		_ = s.Close()
		return
	}
	r.cancel()
	_ = s.ResetWithError(toResetCode(closeCode(err)))
	r.wg.Wait()
}

// loop returns nil at the stream's clean end.
func (r *requestStream) loop(f *wire.Frame, payload []byte) error {
	admit := func(f *wire.Frame) error { return r.c.admit(r.s, f) }
	for {
		if err := r.dispatch(f, payload); err != nil {
			r.c.release(r.s, len(payload))
			return err
		}
		var err error
		if f, payload, err = r.in.next(admit); err != nil {
			r.c.refund(r.s, f)
			if streamEnded(err) {
				return nil
			}
			return err
		}
	}
}

// dispatch starts the work on one frame.
func (r *requestStream) dispatch(f *wire.Frame, payload []byte) error {
	switch b := f.Body.(type) {
	case *wire.Frame_Cancel:
		r.mu.Lock()
		cancel := r.inFlight[f.Number]
		r.mu.Unlock()
		if cancel != nil {
			cancel()
		}
		return nil
	case *wire.Frame_Reply:
		return wire.ErrMalformed
	case *wire.Frame_Open:
		if b.Open.Kind == wire.Kind_KIND_STREAM {
			return wire.ErrMalformed
		}
	}
	select {
	case r.slots <- struct{}{}:
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
	ctx, cancel := r.begin(f)
	if cancel == nil {
		return wire.ErrMalformed // the number is in use
	}
	r.wg.Add(1)
	go r.serve(ctx, cancel, f, payload)
	return nil
}

// begin makes the context of a request, nil if its number is taken.
func (r *requestStream) begin(f *wire.Frame) (context.Context, context.CancelFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.inFlight[f.Number]; ok {
		return nil, nil
	}
	var ctx context.Context
	var cancel context.CancelFunc
	if ms := f.GetOpen().GetTimeoutMs(); ms > 0 {
		ctx, cancel = context.WithTimeout(r.ctx, time.Duration(ms)*time.Millisecond)
	} else {
		ctx, cancel = context.WithCancel(r.ctx)
	}
	r.inFlight[f.Number] = cancel
	return ctx, cancel
}

func (r *requestStream) serve(ctx context.Context, cancel context.CancelFunc, f *wire.Frame, payload []byte) {
	defer r.wg.Done()
	defer func() { <-r.slots }()
	defer r.c.release(r.s, len(payload))
	reply, answer := r.h.server.ServeFrame(ctx, r.c.peer, f, payload, refuseAccept)
	if reply == nil {
		reply = &wire.Reply{}
	}
	// The number is free again once the answer is on its way.
	r.mu.Lock()
	delete(r.inFlight, f.Number)
	r.mu.Unlock()
	cancel()
	if r.ctx.Err() != nil {
		return // this node is stopping: what was cut short is no answer
	}
	if err := writeReply(r.ctx, r.out, f.Number, reply, answer); err != nil {
		r.cancel()
		_ = r.s.ResetWithError(toResetCode(closeCode(err)))
	}
}

func refuseAccept(*wire.Reply) (router.Conn, error) {
	return nil, errors.New("p2p: only an Open of a stream can be accepted")
}
