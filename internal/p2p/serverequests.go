package p2p

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// maxRefusals bounds the refusals that wait to be written to a stream. A peer
// that has so many outstanding sends on and reads nothing.
const maxRefusals = 4096

// requestStream is one incoming stream of requests. It is read without pause,
// whatever becomes of the requests: all users of the other machine share it, and
// a Cancel must never wait.
type requestStream struct {
	h   *Host
	c   *connState
	s   network.Stream
	in  *intake
	out *frameWriter

	ctx    context.Context
	cancel context.CancelFunc
	over   chan struct{} // closed when the stream is

	mu       sync.Mutex
	inFlight map[uint64]context.CancelFunc
	refused  []refusal     // to be written
	refusing bool          // a goroutine writes them
	working  int           // goroutines that serve or write
	rest     chan struct{} // closed, and nil, when there are none; nil if nobody waits
}

type refusal struct {
	number uint64
	why    *api.Error
}

// serveRequests serves a stream of requests, of which m is the first, until the
// peer ends it, breaks the protocol, or the connection is lost.
func (h *Host) serveRequests(in *intake, m incoming) {
	c, s := in.c, in.s
	r := &requestStream{h: h, c: c, s: s, in: in, out: newFrameWriter(s, h.o.Timing.Write),
		over: make(chan struct{}), inFlight: make(map[uint64]context.CancelFunc)}
	r.ctx, r.cancel = context.WithCancel(c.ctx)
	defer r.cancel()
	if !c.requests.add(r) {
		m.held.release()
		_ = s.ResetWithError(toResetCode(api.CodeOverBudget))
		return
	}
	defer close(r.over)
	defer c.requests.remove(r)
	proven(s)
	err := r.loop(m)
	if err == nil { // the peer wants no more answers than those under way
		<-r.idle()
		_ = s.Close()
		return
	}
	r.cancel()
	_ = s.ResetWithError(toResetCode(closeCode(err)))
	<-r.idle()
}

// idle is closed when nothing is served or written, if only for a moment.
func (r *requestStream) idle() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	rest := r.rest
	if rest == nil {
		rest = make(chan struct{})
	}
	if r.working == 0 {
		close(rest)
	} else {
		r.rest = rest
	}
	return rest
}

// done ends the work of a goroutine.
func (r *requestStream) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.working--; r.working == 0 && r.rest != nil {
		close(r.rest)
		r.rest = nil
	}
}

// loop returns nil at the stream's clean end.
func (r *requestStream) loop(m incoming) error {
	for {
		if err := r.dispatch(m); err != nil {
			m.held.release()
			return err
		}
		var err error
		if m, err = r.in.next(); err != nil {
			if streamEnded(err) {
				return nil
			}
			return err
		}
	}
}

// dispatch starts the work on one frame; it never waits.
func (r *requestStream) dispatch(m incoming) error {
	switch b := m.f.Body.(type) {
	case *wire.Frame_Cancel:
		r.mu.Lock()
		cancel := r.inFlight[m.f.Number]
		r.mu.Unlock()
		if cancel != nil {
			cancel()
		}
		return nil
	case *wire.Frame_Reply, *wire.Frame_Aborted:
		return wire.ErrMalformed
	case *wire.Frame_Open:
		if b.Open.Kind == wire.Kind_KIND_STREAM {
			return wire.ErrMalformed
		}
	}
	if m.refused != nil {
		return r.refuse(m.f.Number, m.refused)
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := r.begin(m.f)
	if cancel == nil {
		return wire.ErrMalformed // the number is in use
	}
	r.h.crew.Go(func() { r.serve(ctx, cancel, m) })
	return nil
}

// begin makes the context of a request, nil if its number is taken; done must
// follow.
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
	r.working++
	return ctx, cancel
}

func (r *requestStream) serve(ctx context.Context, cancel context.CancelFunc, m incoming) {
	defer r.done()
	defer m.held.release()
	reply, answer := r.c.serve(ctx, &m, refuseAccept)
	if reply == nil {
		reply = &wire.Reply{}
	}
	if reply.Code == "" {
		r.c.use()
	}
	if !m.held.answer(len(answer)) {
		reply, answer = answerDropped(), nil
	}
	// The number is free again once the answer is on its way.
	r.mu.Lock()
	delete(r.inFlight, m.f.Number)
	r.mu.Unlock()
	cancel()
	r.answer(m.f.Number, reply, answer, &m.held)
}

// serve asks the server.
func (c *connState) serve(ctx context.Context, m *incoming, accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
	c.serving.Add(1)
	defer c.serving.Add(-1)
	return c.table.h.server.ServeFrame(ctx, c.peer, m.f, m.payload, accept)
}

// answer writes a reply. If it cannot the stream is given up.
func (r *requestStream) answer(number uint64, reply *wire.Reply, payload []byte, held *holding) {
	if r.ctx.Err() != nil {
		return // this node is stopping: what was cut short is no answer
	}
	if err := writeReply(r.ctx, r.out, number, reply, payload, held); err != nil {
		r.cancel()
		_ = r.s.ResetWithError(toResetCode(closeCode(err)))
	}
}

// refuse answers a request that was not served. The reader of the stream does
// not write, since that may take long.
func (r *requestStream) refuse(number uint64, why *api.Error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.inFlight[number]; ok {
		return wire.ErrMalformed
	}
	if len(r.refused) == maxRefusals {
		return why
	}
	r.refused = append(r.refused, refusal{number, why})
	if !r.refusing {
		r.refusing = true
		r.working++
		go r.writeRefusals()
	}
	return nil
}

// writeRefusals ends when there are no more.
func (r *requestStream) writeRefusals() {
	defer r.done()
	for {
		r.mu.Lock()
		list := r.refused
		r.refused = nil
		r.refusing = len(list) > 0
		r.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, x := range list {
			r.answer(x.number, wire.ReplyError(x.why), nil, nil)
		}
	}
}

func refuseAccept(*wire.Reply) (router.Conn, error) {
	return nil, errors.New("p2p: only an Open of a stream can be accepted")
}
