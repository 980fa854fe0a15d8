package remote

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// off is what a node was told of another's clock.
type off struct {
	node identity.ID
	by   time.Duration // theirs - ours
}

// watchSkew collects what x is told; x knows all nodes.
func (x *node) watchSkew() *[]off {
	var got []off
	x.Known = func(identity.ID) bool { return true }
	x.OnSkew = func(node identity.ID, theirs time.Time) { got = append(got, off{node, theirs.Sub(x.Now())}) }
	return &got
}

// TestSkewIsToldOnBothSides: who refuses a wrong time, and who is refused for it.
func TestSkewIsToldOnBothSides(t *testing.T) {
	for name, c := range map[string]struct{ skew, far time.Duration }{
		"ahead":  {time.Hour, time.Hour},
		"behind": {-ttl - time.Hour, -time.Hour}, // at most the end of what it sends
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.home.skew = c.skew
			near, far := p.home.watchSkew(), p.far.watchSkew()
			_, err := p.call(`1`) // by whois
			wantCode(t, err, api.CodeClockSkew)
			p.home.holds(p.alice, p.home.delegateAs(p.far, p.bob))
			_, err = p.call(`1`)
			wantCode(t, err, api.CodeClockSkew)
			p.wantSent(t, "whois", "open")
			if want := slices.Repeat([]off{{p.far.id, -c.skew}}, 2); !slices.Equal(*near, want) {
				t.Errorf("who was refused is told %v, not %v", *near, want)
			}
			if want := slices.Repeat([]off{{p.home.id, c.far}}, 2); !slices.Equal(*far, want) {
				t.Errorf("who refused is told %v, not %v", *far, want)
			}
		})
	}
}

// delegateAs is far's delegation of who, as x's clock has it.
func (x *node) delegateAs(far *node, who identity.ID) *identity.Delegation {
	skew := far.skew
	far.skew = x.skew
	defer func() { far.skew = skew }()
	return far.delegate(who, far.id, ttl)
}

func TestSkewOfAReply(t *testing.T) {
	p := newPair(t)
	got := p.home.watchSkew()
	p.far.skew = time.Hour
	raw := p.far.delegate(p.bob, p.far.id, ttl).Raw
	p.far.answer = func(*wire.Frame) (*wire.Reply, []byte) { return &wire.Reply{Delegation: raw}, nil }
	_, err := p.call(`1`)
	wantCode(t, err, api.CodeClockSkew)
	if !slices.Equal(*got, []off{{p.far.id, time.Hour}}) {
		t.Errorf("told %v", *got)
	}
}

// TestSkewIsNotTold of strangers, who can make any, nor of programs' answers.
func TestSkewIsNotTold(t *testing.T) {
	p := newPair(t)
	far := p.far.watchSkew()
	p.far.Known = func(identity.ID) bool { return false }
	p.home.skew = time.Hour
	if _, err := p.call(`1`); api.CodeOf(err) != api.CodeClockSkew {
		t.Fatal(err)
	}
	near := p.home.watchSkew()
	p.home.skew = 0
	p.far.serve(p.bob, func(context.Context, *router.Request) (json.RawMessage, error) {
		return nil, api.Errorf(api.CodeClockSkew, "the times in the data disagree")
	})
	clear(p.home.issued)
	_, err := p.call(`1`)
	wantCode(t, err, api.CodeClockSkew)
	if len(*far)+len(*near) != 0 {
		t.Errorf("told %v and %v", *far, *near)
	}
}
