package messages

import (
	"context"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// mailmanHands is how many messages a program may have and not have answered,
	// each of another sender: one that takes long holds up its sender alone.
	mailmanHands = 16
	mailmanPage  = 64
	// What is read ahead. What finds no room is read again when its turn comes.
	mailmanAhead      = 64
	mailmanAheadBytes = api.MaxPayload
	// A program that answers with an error is told again after a pause, which
	// doubles; other senders' messages go on.
	againMin = time.Second
	againMax = 5 * time.Minute
)

// round is what one mailman knows of the messages that wait for its program. Only
// its own goroutine uses it, the hands tell it through done.
type round struct {
	c *Courier
	m *mailman

	of    map[identity.ID]*bundle
	turn  []*bundle            // that can be told next, in turn
	back  map[*bundle]struct{} // that are held back
	seen  int64                // all messages up to it are in a bundle, or told
	all   bool                 // there were none behind it
	ahead int                  // messages in memory
	size  int                  // and their bytes
	busy  int                  // hands
	done  chan answer          // has room for all hands
	hands sync.WaitGroup
}

// bundle is the messages of one sender, in order. It is in turn, in back, or one
// of its messages is in a hand.
type bundle struct {
	from identity.ID
	next []Incoming
	// Unless it is nothing, others that no room was found for lie on the disk,
	// behind this Seq. Then next gets no more from what comes in.
	rest  int64
	until time.Time     // while it is held back
	pause time.Duration // the last one, until the program takes a message
}

const nothing = -1

// answer is what became of a message that the program was told.
type answer struct {
	b    *bundle
	seq  int64
	size int
	took bool
	err  error
}

func newRound(c *Courier, m *mailman) *round {
	return &round{c: c, m: m, of: make(map[identity.ID]*bundle), back: make(map[*bundle]struct{}), done: make(chan answer, mailmanHands)}
}

// run brings the program its messages until ctx ends.
func (r *round) run(ctx context.Context) {
	defer r.hands.Wait()
	for ctx.Err() == nil {
		err := r.tellAll(ctx)
		if err != nil && ctx.Err() == nil {
			r.failed(err)
		}
		r.wait(ctx, err)
	}
}

func (r *round) failed(err error) {
	r.c.o.Log.Error("cannot bring a program its messages", "protocol", r.m.protocol, "error", err)
}

// tellAll tells the program what can be told now.
func (r *round) tellAll(ctx context.Context) error {
	if !r.all { // not only when nobody else is left: a newcomer has its turn too
		if err := r.look(ctx); err != nil {
			return err
		}
	}
	for r.busy < mailmanHands && ctx.Err() == nil {
		b, err := r.pick(ctx)
		if err != nil || b == nil {
			return err
		}
		one := b.next[0]
		b.next = b.next[1:]
		r.busy++
		r.hands.Go(func() {
			took, err := r.tell(ctx, one)
			r.done <- answer{b, one.Seq, len(one.Data), took, err}
		})
	}
	return nil
}

// tell gives the program one message; took tells that it acknowledged it.
func (r *round) tell(ctx context.Context, one Incoming) (took bool, err error) {
	_, refused := r.m.h.Serve(ctx, &router.Request{From: one.From, To: one.To, Protocol: one.Protocol, Instance: one.Instance,
		Kind: router.Message, Payload: one.Data, MessageID: one.ID})
	if refused != nil {
		return false, nil
	}
	return true, r.c.s.Acknowledge(context.WithoutCancel(ctx), one.To, one.From, one.ID)
}

// pick gives the bundle whose turn it is, with a message; nil if there is none.
func (r *round) pick(ctx context.Context) (*bundle, error) {
	for ctx.Err() == nil {
		if len(r.turn) == 0 {
			if r.all {
				return nil, nil
			}
			if err := r.look(ctx); err != nil {
				return nil, err
			}
			continue
		}
		b := r.turn[0]
		if len(b.next) == 0 {
			if err := r.refill(ctx, b); err != nil {
				return nil, err
			}
		}
		r.turn = r.turn[1:]
		if len(b.next) > 0 {
			return b, nil
		}
		delete(r.of, b.from)
	}
	return nil, nil
}

// look reads the next page of what was not seen so far.
func (r *round) look(ctx context.Context) error {
	list, err := r.page(ctx, r.seen)
	if err != nil {
		return err
	}
	r.all = len(list) == 0
	for _, one := range list {
		r.seen = one.Seq
		b := r.of[one.From]
		if b == nil {
			b = &bundle{from: one.From, rest: nothing}
			r.of[one.From] = b
			r.turn = append(r.turn, b)
		}
		if b.rest == nothing && !r.add(b, one) {
			b.rest = one.Seq - 1
		}
	}
	return nil
}

func (r *round) page(ctx context.Context, after int64) ([]Incoming, error) {
	return r.c.s.Waiting(ctx, r.m.owner, r.m.protocol, r.m.instance, Page{After: after, Limit: mailmanPage, MaxBytes: api.MaxPayload})
}

// add puts one behind the others of b, if there is room.
func (r *round) add(b *bundle, one Incoming) bool {
	if r.ahead >= mailmanAhead || r.ahead > 0 && r.size+len(one.Data) > mailmanAheadBytes {
		return false
	}
	r.put(b, one)
	return true
}

func (r *round) put(b *bundle, one Incoming) {
	b.next = append(b.next, one)
	r.ahead++
	r.size += len(one.Data)
}

// refill reads some of b's messages again that found no room before: at least one,
// if there still are any.
func (r *round) refill(ctx context.Context, b *bundle) error {
	for b.rest != nothing && len(b.next) == 0 {
		list, err := r.page(ctx, b.rest)
		if err != nil {
			return err
		}
		b.rest = r.sift(b, list)
	}
	return nil
}

// sift puts b's messages of list behind the others of b, and tells behind which
// Seq more of them may lie.
func (r *round) sift(b *bundle, list []Incoming) (rest int64) {
	for _, one := range list {
		if rest = one.Seq; rest > r.seen {
			break
		}
		if one.From != b.from || r.add(b, one) {
			continue
		}
		if len(b.next) > 0 {
			return rest - 1
		}
		// Others have all the room: it is told at once.
		r.put(b, one)
		return rest
	}
	if len(list) == 0 || rest >= r.seen {
		return nothing
	}
	return rest
}

// wait waits until there may be something to tell.
func (r *round) wait(ctx context.Context, failed error) {
	timer := time.NewTimer(r.nextLook(failed))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case a := <-r.done:
		r.answered(ctx, a)
	case <-r.m.poke:
		r.all = false
	case <-timer.C:
		r.all = false
	}
	now := r.c.o.Now()
	for b := range r.back {
		if !b.until.After(now) {
			delete(r.back, b)
			r.turn = append(r.turn, b)
		}
	}
}

// nextLook is when something may be told that nothing announces.
func (r *round) nextLook(failed error) time.Duration {
	d := againMax
	if failed != nil {
		d = againMin
	}
	for b := range r.back {
		d = min(d, max(b.until.Sub(r.c.o.Now()), time.Millisecond))
	}
	return d
}

// answered goes on with the sender of a message that the program was told.
func (r *round) answered(ctx context.Context, a answer) {
	b := a.b
	r.busy--
	r.ahead--
	r.size -= a.size
	if ctx.Err() != nil {
		return
	}
	if a.err != nil {
		r.failed(a.err)
	}
	if a.took && a.err == nil {
		b.pause = 0
		if len(b.next) == 0 && b.rest == nothing {
			delete(r.of, b.from)
			return
		}
		r.turn = append(r.turn, b)
		return
	}
	// It is read again then: its owner may have removed it.
	for _, one := range b.next {
		r.ahead--
		r.size -= len(one.Data)
	}
	b.next, b.rest = nil, a.seq-1
	b.pause = min(max(2*b.pause, againMin), againMax)
	b.until = r.c.o.Now().Add(b.pause)
	r.back[b] = struct{}{}
}
