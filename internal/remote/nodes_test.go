package remote

import (
	"context"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// TestSeveralNodes: bob lives on three; those not there are passed over.
func TestSeveralNodes(t *testing.T) {
	for name, c := range map[string]struct {
		first func(*pair, *node)
		code  api.Code
		sent  []string
	}{
		"first not there": {func(_ *pair, n *node) { n.unreachable = true }, "", []string{"whois", "open"}},
		// Nothing of the request was sent to one that does not speak for bob.
		"first refuses whois":      {func(*pair, *node) {}, "", []string{"whois", "whois", "open"}},
		"first is busy at whois":   {func(_ *pair, n *node) { n.answer = says(api.CodeOverBudget) }, "", []string{"whois", "whois", "open"}},
		"first lies at whois":      {func(_ *pair, n *node) { n.answer = says("") }, "", []string{"whois", "whois", "open"}},
		"first refuses, none else": {func(p *pair, _ *node) { p.far.unreachable = true }, api.CodeRefused, []string{"whois"}},
		"first ends at whois, none else": {func(p *pair, n *node) {
			n.answer, p.far.unreachable = says(api.CodeOutcomeUnknown), true
		}, api.CodePeerUnreachable, []string{"whois"}},
		"first fails":            {func(p *pair, n *node) { lends(p, n, api.CodeHandlerFailed) }, api.CodeHandlerFailed, []string{"whois", "open"}},
		"first is over budget":   {func(p *pair, n *node) { lends(p, n, api.CodeOverBudget) }, api.CodeOverBudget, []string{"whois", "open"}},
		"first refuses":          {func(p *pair, n *node) { lends(p, n, api.CodeRefused) }, api.CodeRefused, []string{"whois", "open"}},
		"first lies about paths": {func(p *pair, n *node) { lends(p, n, api.CodePeerUnreachable) }, api.CodeHandlerFailed, []string{"whois", "open"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.far.serve(p.bob, answer)
			first := p.node()
			p.home.hinted[p.out] = []identity.ID{newID(t), first.id, p.far.id}
			c.first(p, first)
			_, err := p.call(`1`)
			wantCode(t, err, c.code)
			p.wantSent(t, c.sent...)
		})
	}
	t.Run("none there", func(t *testing.T) {
		p := newPair(t)
		p.home.hinted[p.out] = []identity.ID{newID(t), newID(t)}
		_, err := p.call(`1`)
		wantCode(t, err, api.CodePeerUnreachable)
	})
	t.Run("caller gone", func(t *testing.T) {
		p := newPair(t)
		p.home.hinted[p.out] = []identity.ID{newID(t), p.far.id}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := p.home.Serve(ctx, &router.Request{From: p.alice, To: p.bob, Protocol: "App", Kind: router.Call})
		wantCode(t, err, api.CodePeerUnreachable)
		p.wantSent(t)
	})
}

// TestWhoisIsRefusedByAll: what the first said is told, not that others are not
// there, and nothing of the request was sent.
func TestWhoisIsRefusedByAll(t *testing.T) {
	p := newPair(t)
	first, second := p.node(), p.node()
	first.answer, second.answer = says(api.CodeOverBudget), says(api.CodeOffline)
	p.home.hinted[p.out] = []identity.ID{newID(t), first.id, second.id, newID(t)}
	_, err := p.call(`{"secret":1}`)
	wantCode(t, err, api.CodeOverBudget)
	for _, s := range p.wantSent(t, "whois", "whois") {
		if s.payload != "" {
			t.Errorf("sent %s", s.payload)
		}
	}
}

// says answers all frames with code.
func says(code api.Code) func(*wire.Frame) (*wire.Reply, []byte) {
	return func(*wire.Frame) (*wire.Reply, []byte) { return &wire.Reply{Code: string(code), Message: "no"}, nil }
}

// lends makes bob live on n too, where every call fails with code.
func lends(p *pair, n *node, code api.Code) {
	d := p.far.delegate(p.bob, n.id, ttl)
	n.answer = func(f *wire.Frame) (*wire.Reply, []byte) {
		if f.GetWhois() != nil {
			return &wire.Reply{Delegation: d.Raw}, nil
		}
		return &wire.Reply{Code: string(code), Message: "no"}, nil
	}
}

// TestEachNodeIsRemembered: of an identity that calls from two nodes both are
// known, whichever delegation is the newer.
func TestEachNodeIsRemembered(t *testing.T) {
	p := newPair(t)
	second := p.node()
	late := p.home.delegate(p.alice, second.id, ttl)
	p.pass(-time.Hour)
	early := p.home.delegate(p.alice, p.home.id, ttl)
	p.pass(time.Hour)
	p.far.contacts[p.back] = true
	p.far.learn(t.Context(), p.bob, late)
	p.far.learn(t.Context(), p.bob, early)
	if got := p.far.Nodes(p.bob, p.alice); len(got) != 2 || len(p.far.held[p.back]) != 2 {
		t.Errorf("%d nodes known, %d in the book", len(got), len(p.far.held[p.back]))
	}
}
