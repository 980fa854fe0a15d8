package remote

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// wantOurs fails unless err is our own word, which refuses nothing.
func wantOurs(t *testing.T, err error, want api.Code) {
	t.Helper()
	wantCode(t, err, want)
	if _, said := errors.AsType[*router.Said](err); said {
		t.Errorf("%v passes for the receiver's word", err)
	}
}

func wantSaid(t *testing.T, err error, want api.Code) {
	t.Helper()
	wantCode(t, err, want)
	if _, said := errors.AsType[*router.Said](err); !said {
		t.Errorf("%v is not told as the receiver's word", err)
	}
}

// A clock that is behind, as after a boot without NTP, refuses no mail, whether a
// delegation is held or not.
func TestMailWhileOurClockIsBehind(t *testing.T) {
	for _, held := range []bool{false, true} {
		p := newPair(t)
		p.far.ConnectPost(&mailbox{})
		if held {
			p.home.holds(p.alice, p.far.delegate(p.bob, p.far.id, ttl))
		}
		p.home.skew = -time.Hour
		_, err := p.home.Deliver(t.Context(), p.mail(router.Letter{ID: uuidA}))
		wantOurs(t, err, api.CodeClockSkew)
	}
}

// A machine that does not prove that it speaks for the receiver refuses nothing.
func TestMailToAPoser(t *testing.T) {
	p := newPair(t)
	p.far.answer = says("")
	_, err := p.home.Deliver(t.Context(), p.mail(router.Letter{ID: uuidA}))
	wantOurs(t, err, api.CodeRefused)
}

func TestMailThatOneNodeRefuses(t *testing.T) {
	p := newPair(t)
	p.far.ConnectPost(&mailbox{err: api.Refusal()})
	_, err := p.home.Deliver(t.Context(), p.mail(router.Letter{ID: uuidA}))
	wantSaid(t, err, api.CodeRefused)
	p.far.keys = nil // nor is it told who lives there
	_, err = p.home.Deliver(t.Context(), p.mail(router.Letter{ID: uuidA}))
	wantSaid(t, err, api.CodeRefused)
}

// Bob has moved to another machine; the old one runs, and refuses all that is
// for him.
func TestMailToOneWhoMoved(t *testing.T) {
	for name, c := range map[string]struct {
		next func(*node)
		want api.Code
		said bool
	}{
		"takes it":  {func(*node) {}, "", false},
		"is off":    {func(n *node) { n.unreachable = true }, api.CodePeerUnreachable, false},
		"is full":   {func(n *node) { n.ConnectPost(&mailbox{err: api.Errorf(api.CodeOverBudget, "full")}) }, api.CodeOverBudget, true},
		"says busy": {func(n *node) { n.answer = says(api.CodeOverBudget) }, api.CodeOverBudget, true},
		"refuses":   {func(n *node) { n.ConnectPost(&mailbox{err: api.Refusal()}) }, api.CodeRefused, true},
		"is posed":  {func(n *node) { n.answer = says("") }, api.CodeRefused, false},
	} {
		for _, held := range []bool{false, true} {
			for _, oldFirst := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, held %v, old first %v", name, held, oldFirst), func(t *testing.T) {
					p := newPair(t)
					p.far.ConnectPost(&mailbox{err: api.Refusal()})
					if held {
						p.home.holds(p.alice, p.far.delegate(p.bob, p.far.id, ttl))
					}
					next := p.node()
					next.keys[p.bob] = p.far.keys[p.bob]
					next.granted[p.alice] = true
					next.ConnectPost(&mailbox{})
					c.next(next)
					delete(p.far.keys, p.bob)
					p.home.hinted[p.out] = []identity.ID{next.id, p.far.id}
					if oldFirst {
						p.home.hinted[p.out] = []identity.ID{p.far.id, next.id}
					}
					out, err := p.home.Deliver(t.Context(), p.mail(router.Letter{ID: uuidA}))
					switch {
					case c.said:
						wantSaid(t, err, c.want)
					case c.want != "":
						wantOurs(t, err, c.want)
					case err != nil || len(out) != 1 || out[0] != nil:
						t.Errorf("%v, %v", out, err)
					}
				})
			}
		}
	}
}
