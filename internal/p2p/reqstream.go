package p2p

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// result is the answer to one request.
type result struct {
	reply   *wire.Reply
	payload []byte
	err     *api.Error
}

// answers are the places where requests wait; each holds one result.
var answers = sync.Pool{New: func() any { return make(chan result, 1) }}

// reqStream is an outgoing request stream.
type reqStream struct {
	h    *Host
	pool *pool
	conn *connState
	s    network.Stream
	in   *frameReader
	out  *frameWriter
	bulk atomic.Int32 // bulky frames under way, either direction

	begun atomic.Bool // a frame was sent, or is being sent

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan result
	broken  *api.Error
}

func newReqStream(h *Host, p *pool, c *connState, s network.Stream) *reqStream {
	return &reqStream{h: h, pool: p, conn: c, s: s,
		in:      newFrameReader(s, h.o.Timing.Header),
		out:     newFrameWriter(s, h.o.Timing.Write),
		waiting: make(map[uint64]chan result)}
}

// do sends one request and waits for its answer. retry tells that the peer
// cannot have seen all of it, because the stream was broken; res.err is why.
func (r *reqStream) do(ctx context.Context, f *wire.Frame, payload []byte) (res result, retry bool) {
	ch, ok := r.register(f)
	if !ok {
		return result{err: r.sendError(nil)}, true
	}
	r.conn.asking.Add(1)
	defer r.conn.asking.Add(-1)
	if w, err := r.write(ctx, f, payload); err != nil {
		return r.unsent(ctx, f, ch, w, err)
	}
	select {
	case res = <-ch:
	case <-ctx.Done():
		if !r.unregister(f.Number) {
			res = <-ch // it came at the same moment
			break
		}
		number := f.Number
		r.h.tasks.run(func() { r.sendCancel(number) })
		res.err = ctxError(ctx, "the peer did not answer")
	}
	answers.Put(ch)
	return res, false
}

// write sends a frame. It returns without an error also if ctx ended while the
// frame was being sent: it is then finished behind the caller's back, since half
// of one would break the stream for the others on it.
func (r *reqStream) write(ctx context.Context, f *wire.Frame, payload []byte) (written, error) {
	if len(payload) > bulky || !r.begun.Load() && !r.begun.Swap(true) {
		return r.writeAside(ctx, f, payload)
	}
	done, err := r.out.writeSoon(ctx, f, payload)
	if done.rest == nil {
		return done, err
	}
	if !r.h.tasks.run(func() { r.finish(done.rest) }) {
		r.finish(done.rest) // soon: the connections are being closed
	}
	return done, nil
}

func (r *reqStream) finish(rest func() error) {
	if rest() != nil {
		r.fail(r.conn.lostError())
	}
}

// writeAside sends a frame that may take long from a goroutine of its own.
func (r *reqStream) writeAside(ctx context.Context, f *wire.Frame, payload []byte) (written, error) {
	type outcome struct {
		written
		err error
	}
	ch := make(chan outcome, 1)
	big := int32(0)
	if len(payload) > bulky {
		big = 1
	}
	r.bulk.Add(big)
	ok := r.h.tasks.run(func() {
		defer r.bulk.Add(-big)
		done, err := r.out.write(ctx, f, payload)
		ch <- outcome{done, err}
		if err != nil && done.started {
			r.fail(r.conn.lostError()) // nobody else may be there to see it
		}
	})
	if !ok {
		r.bulk.Add(-big)
		return written{}, errStopping
	}
	select {
	case o := <-ch:
		return o.written, o.err
	case <-ctx.Done():
		return written{started: true}, nil // and do sees the end of ctx
	}
}

// unsent ends a request whose frame could not be written.
func (r *reqStream) unsent(ctx context.Context, f *wire.Frame, ch chan result, w written, err error) (res result, retry bool) {
	defer answers.Put(ch)
	refused := unsendable(err)
	late := err == context.DeadlineExceeded || err == context.Canceled // of ctx, not of the stream
	if !late && refused == nil {
		r.fail(r.conn.lostError()) // not even the next frame would get through
	}
	if !r.unregister(f.Number) {
		res = <-ch
	}
	switch {
	case w.complete:
		if res.reply == nil && res.err == nil {
			res.err = r.conn.lostError()
		}
		return res, false
	case refused != nil:
		return result{err: refused}, false
	case late:
		<-ctx.Done() // its time has come, if its timer has not
		return result{err: ctxError(ctx, "the request could not be sent")}, false
	}
	return result{err: r.sendError(err)}, true
}

// sendError is why a request could not be sent on the stream: err, or that it was
// broken before.
func (r *reqStream) sendError(err error) *api.Error {
	if err == nil {
		err = &network.ConnError{}
	}
	return api.AsError(r.conn.streamError(err))
}

// unsendable is the error of a request that no frame may hold, nil for other errors.
func unsendable(err error) *api.Error {
	if errors.Is(err, wire.ErrTooLarge) || errors.Is(err, wire.ErrMalformed) {
		return api.Errorf(api.CodeTooLarge, "the request cannot be sent: %v", err)
	}
	return nil
}

// register gives f its number and a place for its answer; false if the stream is
// broken.
func (r *reqStream) register(f *wire.Frame) (chan result, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return nil, false
	}
	r.next++
	f.Number = r.next
	ch := answers.Get().(chan result)
	r.waiting[f.Number] = ch
	return ch, true
}

// unregister takes a request back; false if its result is there or on its way.
func (r *reqStream) unregister(number uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.waiting[number]
	delete(r.waiting, number)
	return ok
}

// deliver gives a request its result; one that nobody waits for is dropped.
func (r *reqStream) deliver(number uint64, res result) {
	r.mu.Lock()
	ch, ok := r.waiting[number]
	delete(r.waiting, number)
	r.mu.Unlock()
	if ok {
		ch <- res // has room: one result per registration
	}
}

// read delivers answers until the stream breaks.
func (r *reqStream) read() {
	defer r.h.conns.forget(r.conn)
	defer r.in.release()
	big := int32(0)
	r.in.admit = func(f *wire.Frame) *api.Error {
		if f.PayloadSize > bulky {
			big = 1
			r.bulk.Add(big)
		}
		return nil
	}
	for {
		big = 0
		f, payload, _, err := r.in.next()
		r.bulk.Add(-big)
		if err != nil || f.GetReply() == nil {
			r.fail(r.conn.lostError())
			return
		}
		if f.GetReply().Code == "" {
			r.conn.use()
		}
		r.deliver(f.Number, result{reply: f.GetReply(), payload: payload})
	}
}

// fail breaks the stream for everyone on it.
func (r *reqStream) fail(why *api.Error) {
	r.mu.Lock()
	if r.broken != nil {
		r.mu.Unlock()
		return
	}
	r.broken = why
	waiting := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	r.pool.remove(r)
	_ = r.s.ResetWithError(toResetCode(api.CodeAborted))
	for _, ch := range waiting {
		ch <- result{err: why}
	}
}

// sendCancel tells that an answer is not wanted any more.
func (r *reqStream) sendCancel(number uint64) {
	f := &wire.Frame{Number: number, Body: &wire.Frame_Cancel{Cancel: &wire.Cancel{}}}
	if _, err := r.out.write(r.h.ctx, f, nil); err != nil {
		r.fail(r.conn.lostError())
	}
}
