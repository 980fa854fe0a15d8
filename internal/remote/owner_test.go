package remote

import (
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// callAs makes another of p.home's users call bob's App.
func (p *pair) callAs(from identity.ID) error {
	_, err := p.home.rt.Route(p.t.Context(), &router.Request{From: from, To: p.bob, Protocol: "App", Kind: router.Call, Timeout: time.Minute})
	return err
}

// TestWhatOneKnowsIsNotAnothers: to carol of the same node, whose contact bob may
// be too, bob is as unknown as nobody.
func TestWhatOneKnowsIsNotAnothers(t *testing.T) {
	p := newPair(t)
	p.far.serve(p.bob, answer)
	carol := p.home.user()
	p.far.granted[carol] = true
	of := heard{carol, p.bob}
	p.home.contacts[of] = true
	ticket, d := p.invite()
	for name, learn := range map[string]func() error{
		"by whois and reply": func() error { _, err := p.call(`1`); return err },
		"by a ticket":        func() error { return p.home.Redeem(t.Context(), p.alice, ticket, d) },
		"by being called": func() error {
			_, _, err := p.far.ask(p.home.id, open(p.far.delegate(p.bob, p.far.id, ttl).Raw, p.alice), "1")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p.home.lately = newRecent()
			p.home.held = make(map[heard][]*identity.Delegation)
			if err := learn(); err != nil {
				t.Fatal(err)
			}
			if len(p.home.Nodes(p.alice, p.bob)) != 1 || len(p.home.held[p.out]) != 1 {
				t.Error("alice knows nothing")
			}
			if err := p.home.Adopt(t.Context(), carol, p.bob); err != nil {
				t.Fatal(err)
			}
			if n := p.home.Nodes(carol, p.bob); len(n) != 0 || len(p.home.held[of]) != 0 {
				t.Errorf("carol knows %v, her book %v", n, p.home.held[of])
			}
			p.took()
			wantCode(t, p.callAs(carol), api.CodePeerUnreachable)
			p.wantSent(t)
		})
	}
	// Who learns it herself does know.
	p.home.hinted[of] = []identity.ID{p.far.id}
	if err := p.callAs(carol); err != nil {
		t.Error(err)
	}
	if len(p.home.held[of]) != 1 {
		t.Error("carol learned nothing")
	}
}

// TestCallerIsRememberedForWhoWasCalled, not for others of that node.
func TestCallerIsRememberedForWhoWasCalled(t *testing.T) {
	p := newPair(t)
	other := p.far.user()
	p.far.serve(p.bob, answer)
	if _, err := p.call(`1`); err != nil {
		t.Fatal(err)
	}
	if len(p.far.Nodes(p.bob, p.alice)) != 1 || len(p.far.Nodes(other, p.alice)) != 0 {
		t.Errorf("bob knows %v, another %v", p.far.Nodes(p.bob, p.alice), p.far.Nodes(other, p.alice))
	}
}

// TestNobodyRemembersNothing: who asks for one that is not here leaves no trace.
func TestNobodyRemembersNothing(t *testing.T) {
	p := newPair(t)
	raw, nobody := p.home.delegate(p.alice, p.home.id, ttl).Raw, newID(t)
	for name, send := range map[string]func() error{
		"open":  func() error { _, _, err := p.home.ask(p.far.id, open(raw, nobody), "1"); return err },
		"whois": func() error { _, _, err := p.home.ask(p.far.id, whois(raw, nobody), ""); return err },
		"redeem": func() error {
			_, _, err := p.home.ask(p.far.id, redeem(raw, nobody, identity.Secret{1}), "")
			return err
		},
	} {
		if err := send(); err != nil {
			t.Fatal(err)
		}
		if n := len(p.far.lately.of); n != 0 {
			t.Errorf("%s: %d are remembered", name, n)
		}
	}
	if _, _, err := p.home.ask(p.far.id, open(raw, p.bob), "1"); err != nil || len(p.far.lately.of) != 1 {
		t.Errorf("of one that is here %d are remembered, %v", len(p.far.lately.of), err)
	}
}

// TestRevocationCountsForAll: alice heard of the node, carol that it is revoked.
func TestRevocationCountsForAll(t *testing.T) {
	p := newPair(t)
	p.far.serve(p.bob, answer)
	carol := p.home.user()
	p.home.learn(t.Context(), p.alice, p.far.delegate(p.bob, p.far.id, ttl))
	if _, err := p.call(`1`); err != nil {
		t.Fatal(err)
	}
	p.pass(time.Minute)
	short := p.far.delegate(p.bob, p.far.id, time.Second)
	if _, err := p.home.received(t.Context(), carol, short.Raw, p.far.id, p.bob); err != nil {
		t.Fatal(err)
	}
	p.pass(time.Second)
	p.took()
	p.home.hinted[p.out] = nil
	_, err := p.call(`1`)
	wantCode(t, err, api.CodePeerUnreachable)
	p.wantSent(t)
}
