package p2p

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// Request sends an Open of a call or message, a Whois or a Redeem to a node and
// returns its answer; it fills f.Number. f and payload must not be changed
// afterwards. A Reply that carries an error is a Reply, not an error.
//
// Errors are *api.Error: CodePeerUnreachable (never sent), CodeOutcomeUnknown
// (sent, then the connection broke), CodeTimeout and CodeCancelled (ctx ended;
// the peer is told), CodeTooLarge.
func (h *Host) Request(ctx context.Context, node identity.ID, f *wire.Frame, payload []byte) (*wire.Reply, []byte, error) {
	n := h.nodes.get(node)
	defer n.done()
	if len(payload) > bulky {
		from, _ := senderOf(f)
		leave, err := n.pace.enter(ctx, from, len(payload))
		if err != nil {
			return nil, nil, err
		}
		defer leave()
	}
	var why *api.Error
	for range 2 {
		s, err := n.pool.get(ctx, len(payload) > bulky)
		if err != nil {
			return nil, nil, err
		}
		res, retry := s.do(ctx, f, payload)
		if retry {
			why = res.err
			continue
		}
		if res.err != nil {
			return nil, nil, res.err
		}
		return res.reply, res.payload, nil
	}
	return nil, nil, n.notSent(why)
}

// OpenStream sends an Open of a stream. The Conn is nil if the Reply carries an
// error. Errors are those of Request; ctx is for the opening only.
func (h *Host) OpenStream(ctx context.Context, node identity.ID, f *wire.Frame, payload []byte) (router.Conn, *wire.Reply, []byte, error) {
	if !h.tasks.begin() {
		return nil, nil, nil, stopping()
	}
	defer h.tasks.end()
	n := h.nodes.get(node)
	defer n.done()
	var why *api.Error
	for range 2 {
		s, state, err := n.newStream(ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		o := opening{h: h, s: s, conn: state}
		conn, reply, answer, retry, err := o.do(ctx, f, payload)
		if retry {
			why = err
			continue
		}
		if err != nil {
			return nil, nil, nil, err
		}
		if conn == nil { // not a router.Conn that holds nil
			return nil, reply, answer, nil
		}
		return conn, reply, answer, nil
	}
	return nil, nil, nil, n.notSent(why)
}

// opening is an outgoing stream that is not accepted yet.
type opening struct {
	h    *Host
	s    network.Stream
	conn *connState
}

// do sends the Open and reads its Reply. retry tells that the peer cannot have seen
// all of it; the error is why.
func (o opening) do(ctx context.Context, f *wire.Frame, payload []byte) (conn *rawStream, reply *wire.Reply, answer []byte, retry bool, _ *api.Error) {
	defer o.h.conns.forget(o.conn)
	o.conn.asking.Add(1)
	defer o.conn.asking.Add(-1)
	stop := context.AfterFunc(ctx, func() {
		_ = o.s.ResetWithError(toResetCode(api.CodeCancelled))
	})
	f.Number = o.conn.numbers.Add(1)
	done, err := newFrameWriter(o.s, o.h.o.Timing.Write).write(ctx, f, payload)
	if err != nil {
		stop()
		_ = o.s.Reset()
		if e := unsendable(err); e != nil {
			return nil, nil, nil, false, e
		}
		if done.complete || ctx.Err() != nil {
			return nil, nil, nil, false, o.lost(ctx, err)
		}
		return nil, nil, nil, true, api.AsError(o.conn.streamError(err))
	}
	in := newFrameReader(o.s, o.h.o.Timing.Header)
	got, answer, _, err := in.next()
	if !stop() || err != nil || got.GetReply() == nil {
		in.release()
		_ = o.s.ResetWithError(toResetCode(closeCode(err)))
		return nil, nil, nil, false, o.lost(ctx, err)
	}
	reply = got.GetReply()
	if reply.GetCode() != "" {
		in.release()
		_ = o.s.CloseWrite()
		_ = o.s.Close()
		return nil, reply, answer, false, nil
	}
	o.conn.use()
	_ = o.s.SetWriteDeadline(time.Time{})
	return newRawStream(o.s, streamKey{ours: true, number: f.Number}, in.br, &o.conn.raw), reply, answer, false, nil
}

// lost is the error of a stream that was sent its Open and failed with err. Where the
// peer reset it that is told as of a stream that was accepted: it may have been, as a
// reset overtakes the answer.
func (o opening) lost(ctx context.Context, err error) *api.Error {
	if ctx.Err() != nil {
		return ctxError(ctx, "the peer did not answer")
	}
	var se *network.StreamError
	if errors.As(err, &se) && se.Remote && se.ErrorCode >= resetBase {
		return api.AsError(streamError(err))
	}
	return o.conn.lostError()
}
