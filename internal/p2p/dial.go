package p2p

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/fastn-stack/fastnd/service/api"
)

// dial is one attempt to connect that many callers may wait for.
type dial struct {
	done chan struct{}
	err  *api.Error
}

// failure is a dial that failed a moment ago.
type failure struct {
	err   *api.Error
	again time.Time     // when the next one may begin
	over  chan struct{} // closed when it is held against the node no longer
}

// refusedAgain is the pause after a dial that failed at once, as when the machine
// says that nobody listens: it may be about to be started.
const refusedAgain = 250 * time.Millisecond

// pauseAfter is the pause after a dial that took so long to fail.
func (h *Host) pauseAfter(took time.Duration) time.Duration {
	return min(max(took, refusedAgain), h.o.Timing.DialAgain)
}

// forgive makes the next dial begin at once. n.mu is held.
func (n *node) forgive() {
	if n.failed != nil {
		close(n.failed.over)
		n.failed = nil
	}
}

// connect returns once there is a connection. Callers share one dial. After one
// that failed there is a pause; who has the time waits for the next dial, since
// the peer may just be starting.
func (n *node) connect(ctx context.Context) *api.Error {
	for waited := false; ; waited = true {
		if n.h.sw.Connectedness(n.id.PeerID()) == network.Connected {
			return nil
		}
		d, recent, err := n.startDial()
		switch {
		case err != nil:
			return err
		case d != nil:
			return n.await(ctx, d)
		case waited || !n.pause(ctx, recent):
			return recent.err
		}
	}
}

// await waits for a dial, but leaves a moment before the deadline of ctx: whoever
// else watches that would only know that the time has passed.
func (n *node) await(ctx context.Context, d *dial) *api.Error {
	var early <-chan time.Time
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		timer := time.NewTimer(left - min(left/10, 200*time.Millisecond))
		defer timer.Stop()
		early = timer.C
	}
	select {
	case <-d.done:
		return d.err
	case <-early:
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctxError(ctx, "")
	}
	return n.unreachable("", n.addrs())
}

// pause waits until a dial may follow f; false if ctx leaves no time for one.
func (n *node) pause(ctx context.Context, f *failure) bool {
	left := time.Until(f.again)
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= left {
		return false
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.over:
	case <-n.h.ctx.Done():
	case <-ctx.Done():
		return false
	}
	return true
}

// startDial joins the dial that runs, or starts one, unless one failed recently.
func (n *node) startDial() (*dial, *failure, *api.Error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dialling != nil {
		return n.dialling, nil, nil
	}
	if n.failed != nil && time.Now().Before(n.failed.again) {
		return nil, n.failed, nil
	}
	d := &dial{done: make(chan struct{})}
	n.dialling = d
	ok := n.h.tasks.run(func() {
		began := time.Now()
		err, asked := n.dial()
		d.err = err
		n.mu.Lock()
		n.dialling = nil
		n.forgive()
		n.why = ""
		if err != nil {
			n.why = strings.TrimPrefix(err.Message, unreachablePrefix)
		}
		if err != nil && asked {
			n.failed = &failure{err: err, again: time.Now().Add(n.h.pauseAfter(time.Since(began))), over: make(chan struct{})}
		}
		n.mu.Unlock()
		close(d.done)
	})
	if !ok {
		n.dialling = nil
		return nil, nil, stopping()
	}
	return d, nil, nil
}

// dial connects with every address that is known; asked tells whether there was
// any, else the next dial may follow at once.
func (n *node) dial() (_ *api.Error, asked bool) {
	id := n.id.PeerID()
	if n.id == n.h.node {
		return api.Errorf(api.CodeInternal, "this node was asked to connect to itself"), false
	}
	addrs := n.addrs()
	if len(addrs) == 0 {
		return api.Errorf(api.CodePeerUnreachable, unreachablePrefix+"no address of node %s is known", n.id.Short()).
			WithHint("ask for a new ticket, or add an address with \"fastn contact add NAME ID --address MULTIADDR\""), false
	}
	ctx, cancel := context.WithTimeout(n.h.ctx, n.h.o.Timing.Dial)
	defer cancel()
	n.h.sw.Backoff().Clear(id) // the pause between dials is ours
	n.h.ps.AddAddrs(id, addrs, peerstore.TempAddrTTL)
	err := n.h.bh.Connect(network.WithDialPeerTimeout(ctx, n.h.o.Timing.Dial), peer.AddrInfo{ID: id})
	if err == nil || n.h.sw.Connectedness(id) == network.Connected {
		return nil, true
	}
	return n.unreachable(dialReasons(err), addrs), true
}

// addrs collects the addresses from the book, the configuration and the peer.
func (n *node) addrs() []ma.Multiaddr {
	var lists [][]string
	if n.h.o.Book != nil {
		lists = append(lists, n.h.o.Book.Addresses(n.id))
	}
	lists = append(lists, n.h.told.Load().static[n.id])
	var out []ma.Multiaddr
	for _, list := range lists {
		for _, s := range list {
			if m, err := parseAddr(s, n.id); err == nil {
				out = append(out, m)
			}
		}
	}
	out = distinct(append(out, n.h.ps.Addrs(n.id.PeerID())...))
	return out[:min(len(out), 2*maxAddrs)]
}

const unreachablePrefix = "peer not reachable: "

// maxReasons bounds the addresses that an error names.
const maxReasons = 4

// stopping is the error of a request that is not sent since this node stops.
func stopping() *api.Error {
	return api.Errorf(api.CodePeerUnreachable, unreachablePrefix+"this node is stopping").
		WithHint("nothing was sent: try again when the daemon runs again")
}

// notSent is the error of a request that could not be sent on two streams, or of
// one that would have been; why is of the second.
func (n *node) notSent(why error) *api.Error {
	return n.unreachable("the request could not be sent, two times over: "+api.AsError(why).Message, nil)
}

// unreachable makes the error of a request that was never sent.
func (n *node) unreachable(why string, addrs []ma.Multiaddr) *api.Error {
	if n.h.ctx.Err() != nil {
		return stopping() // which broke whatever it was
	}
	if why == "" {
		var tried []string
		for _, m := range addrs[:min(len(addrs), maxReasons)] {
			tried = append(tried, m.String())
		}
		why = "no answer in the time allowed from " + strings.Join(tried, ", ")
	}
	return api.Errorf(api.CodePeerUnreachable, unreachablePrefix+"%s", why).
		WithHint("see that fastn runs there and that its port is open; \"fastn peers\" shows who is connected")
}

// dialReasons tells which addresses were tried and why each failed.
func dialReasons(err error) string {
	var de *swarm.DialError
	if !errors.As(err, &de) {
		if errors.Is(err, context.DeadlineExceeded) {
			return ""
		}
		return shortReason(err)
	}
	var out []string
	for i, te := range de.DialErrors {
		if i == maxReasons {
			out = append(out, fmt.Sprintf("and %d more", len(de.DialErrors)+de.Skipped-maxReasons))
			break
		}
		out = append(out, te.Address.String()+": "+shortReason(te.Cause))
	}
	if len(out) == 0 && de.Cause != nil {
		return shortReason(de.Cause)
	}
	return strings.Join(out, "; ")
}

// shortReason cuts a chain of errors down to its cause.
func shortReason(err error) string {
	if err == nil {
		return "unknown"
	}
	if isTimeout(err) || errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	s, _, _ := strings.Cut(err.Error(), "\n")
	if i := strings.LastIndex(s, ": "); i >= 0 {
		s = s[i+2:]
	}
	if len(s) > 120 {
		s = s[:120]
	}
	return strings.ToLower(s)
}
