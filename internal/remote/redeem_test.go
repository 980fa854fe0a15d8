package remote

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// invite makes a ticket of bob that one identity can use.
func (p *pair) invite() (*identity.Ticket, *identity.Delegation) {
	p.t.Helper()
	d := p.far.delegate(p.bob, p.far.id, ttl)
	ticket := &identity.Ticket{Identity: p.bob, Delegation: d.Raw, Addresses: []string{"/ip4/127.0.0.1/tcp/1"},
		Expires: p.far.Now().Add(time.Hour), Secret: identity.NewSecret()}
	p.far.tickets[ticket.Secret] = func(by identity.ID) error {
		p.far.mu.Lock()
		defer p.far.mu.Unlock()
		p.far.contacts[heard{p.bob, by}], p.far.granted[by] = true, true
		return nil
	}
	return ticket, d
}

// TestRedeem: afterwards each side can reach the other without asking.
func TestRedeem(t *testing.T) {
	p := newPair(t)
	p.far.granted = map[identity.ID]bool{}
	p.home.hinted, p.home.contacts = map[heard][]identity.ID{}, map[heard]bool{}
	p.home.serve(p.alice, answer)
	p.far.serve(p.bob, answer)
	p.home.granted[p.bob] = true
	ticket, d := p.invite()
	p.pass(time.Minute) // the node's own delegation will be the newer one
	if err := p.home.Redeem(t.Context(), p.alice, ticket, d); err != nil {
		t.Fatal(err)
	}
	sent := p.wantSent(t, "redeem")
	if sent[0].to != p.far.id {
		t.Error("the secret went elsewhere")
	}
	if got := p.far.held[p.back]; len(got) != 1 || got[0].Node != p.home.id {
		t.Errorf("the inviter's book holds %d delegations", len(got))
	}
	if len(p.home.held[p.out]) != 0 {
		t.Error("kept before he is a contact here")
	}
	p.home.contacts[p.out] = true
	if err := p.home.Adopt(t.Context(), p.alice, p.bob); err != nil {
		t.Fatal(err)
	}
	if got := p.home.held[p.out]; len(got) != 1 || got[0].Node != p.far.id || !got[0].Issued.After(d.Issued) {
		t.Errorf("the user's book holds %+v, not the newest", got)
	}
	if _, err := p.call(`1`); err != nil {
		t.Error(err)
	}
	p.wantSent(t, "open")
	p.pass(ttl/2 + time.Hour)
	if _, err := p.call(`1`); err != nil {
		t.Errorf("when the ticket is past: %v", err)
	}
	// The answer may have been lost: the same again.
	if err := p.home.Redeem(t.Context(), p.alice, ticket, d); err != nil {
		t.Error(err)
	}
}

func TestRedeemRefused(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want *api.Error
	}{
		"used":     {api.Errorf(api.CodeExpired, "used").WithHint("ask"), api.Errorf(api.CodeExpired, "used").WithHint("ask")},
		"refused":  {api.Refusal(), api.Refusal()},
		"disk":     {errors.New("disk full at /var"), api.Errorf(api.CodeHandlerFailed, "the peer's machine could not do it")},
		"no trace": {nil, api.Refusal()}, // a secret that is none
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			ticket, d := p.invite()
			p.far.tickets[ticket.Secret] = func(identity.ID) error { return c.err }
			if name == "no trace" {
				ticket.Secret = identity.NewSecret()
			}
			err := p.home.Redeem(t.Context(), p.alice, ticket, d)
			if !api.IsRefusal(c.want) {
				c.want.Peer = ticket.Identity.String()
			}
			if e := api.AsError(err); e == nil || *e != *c.want {
				t.Errorf("told %+v", e)
			}
			if len(p.home.lately.of) != 0 {
				t.Error("something is remembered of a ticket that was refused")
			}
			if len(p.far.held[p.back]) != 0 {
				t.Error("the inviter kept something")
			}
		})
	}
}

// TestRedeemFailsAfterwards: the inviter's disk failed after the contact was made.
func TestRedeemFailsAfterwards(t *testing.T) {
	p := newPair(t)
	ticket, d := p.invite()
	p.far.failing = errors.New("disk full at /var")
	wantCode(t, p.home.Redeem(t.Context(), p.alice, ticket, d), api.CodeHandlerFailed)
	p.far.failing = nil
	if err := p.home.Redeem(t.Context(), p.alice, ticket, d); err != nil || len(p.far.held[p.back]) != 1 {
		t.Errorf("the second try: %v, %d held", err, len(p.far.held[p.back]))
	}
}

// An answer that is lost is asked for again, once.
func TestRedeemWithoutAnAnswer(t *testing.T) {
	p := newPair(t)
	ticket, d := p.invite()
	p.far.lost = 1
	if err := p.home.Redeem(t.Context(), p.alice, ticket, d); err != nil || len(p.far.held[p.back]) != 1 {
		t.Errorf("%v, %d held", err, len(p.far.held[p.back]))
	}
	p.wantSent(t, "redeem", "redeem")
	p.far.lost = 2
	wantCode(t, p.home.Redeem(t.Context(), p.alice, ticket, d), api.CodeOutcomeUnknown)
}

func TestRedeemUnreachable(t *testing.T) {
	p := newPair(t)
	ticket, d := p.invite()
	p.far.unreachable = true
	wantCode(t, p.home.Redeem(t.Context(), p.alice, ticket, d), api.CodePeerUnreachable)
	if p.home.Hints(p.far.id) != nil || len(p.home.lately.of) != 0 {
		t.Error("something was kept")
	}
}

// TestRedeemRevoked: bob withdrew the node that his ticket names.
func TestRedeemRevoked(t *testing.T) {
	p := newPair(t)
	ticket, d := p.invite()
	p.pass(time.Minute)
	short := p.far.delegate(p.bob, p.far.id, time.Second)
	if _, err := p.home.Verifier.Verify(short.Raw, p.far.id, p.home.Now()); err != nil {
		t.Fatal(err)
	}
	p.pass(time.Second)
	wantCode(t, p.home.Redeem(t.Context(), p.alice, ticket, d), api.CodeExpired)
	p.wantSent(t)
}

// TestRedeemOnTheSameNode needs no network.
func TestRedeemOnTheSameNode(t *testing.T) {
	p := newPair(t)
	ticket, d := p.invite()
	carol := p.far.user()
	if err := p.far.Redeem(t.Context(), carol, ticket, d); err != nil || !p.far.contacts[heard{p.bob, carol}] {
		t.Errorf("%v, contact: %v", err, p.far.contacts[heard{p.bob, carol}])
	}
	ticket.Secret = identity.NewSecret()
	wantCode(t, p.far.Redeem(t.Context(), carol, ticket, d), api.CodeRefused)
	p.wantSent(t)
}

// TestRedeemLearnsFromTheTicket: a reply need not carry a delegation.
func TestRedeemLearnsFromTheTicket(t *testing.T) {
	p := newPair(t)
	ticket, d := p.invite()
	p.far.answer = func(*wire.Frame) (*wire.Reply, []byte) { return &wire.Reply{}, nil }
	if err := p.home.Redeem(t.Context(), p.alice, ticket, d); err != nil {
		t.Fatal(err)
	}
	if got := p.home.held[p.out]; len(got) != 1 || !got[0].Issued.Equal(d.Issued) {
		t.Errorf("the book holds %d delegations", len(got))
	}
}

// TestHintsWhileRedeeming: the ticket's addresses count exactly as long, also
// where two tickets of one node are used at once.
func TestHintsWhileRedeeming(t *testing.T) {
	p := newPair(t)
	first, d := p.invite()
	second, _ := p.invite()
	second.Addresses = []string{"/ip4/127.0.0.1/tcp/2"}
	var both []string
	p.far.answer = func(f *wire.Frame) (*wire.Reply, []byte) {
		if identity.Secret(f.GetRedeem().GetSecret()) == first.Secret {
			if err := p.home.Redeem(t.Context(), p.alice, second, d); err != nil {
				t.Error(err)
			}
			if got := p.home.Hints(p.far.id); !slices.Equal(got, first.Addresses) {
				t.Errorf("after the second: %q", got)
			}
			return &wire.Reply{}, nil
		}
		both = p.home.Hints(p.far.id)
		if p.home.Hints(p.home.id) != nil {
			t.Error("hints for another node")
		}
		return &wire.Reply{}, nil
	}
	if err := p.home.Redeem(t.Context(), p.alice, first, d); err != nil {
		t.Fatal(err)
	}
	if want := append(slices.Clone(first.Addresses), second.Addresses...); !slices.Equal(both, want) {
		t.Errorf("while both: %q", both)
	}
	if got := p.home.Hints(p.far.id); got != nil {
		t.Errorf("afterwards: %q", got)
	}
}

// TestStrangersMemoryIsBounded: identities are free to make.
func TestStrangersMemoryIsBounded(t *testing.T) {
	r := newRecent()
	id := func(i int) identity.ID { return identity.ID{byte(i), byte(i >> 8), byte(i >> 16), 1} }
	base := time.Unix(1_800_000_000, 0)
	const many, owners = 3 * recentIdentities, recentIdentities/recentOfOwner + 1
	hear := func(owner, who, node, seconds int) {
		r.put(id(-owner), &identity.Delegation{Identity: id(who), Node: id(node), Issued: base.Add(time.Duration(seconds) * time.Second)})
	}
	want := func(owner, who, nodes int) {
		t.Helper()
		if got := r.get(id(-owner), id(who)); len(got) != nodes {
			t.Errorf("%d nodes of %d are remembered for %d", len(got), who, owner)
		}
	}
	// A flood at one owner takes nothing from another.
	hear(2, 1, 1, 0)
	for i := range many {
		hear(1, i, i, 0)
	}
	if len(r.of) != recentOfOwner+1 {
		t.Errorf("%d are remembered", len(r.of))
	}
	want(2, 1, 1)
	want(1, many-recentOfOwner-1, 0)
	want(1, many-recentOfOwner, 1)
	want(1, many-1, 1)
	// All owners together have a bound of their own.
	for i := range many {
		hear(i%owners, i, i, 0)
	}
	if len(r.of) != recentIdentities || len(r.order) != recentIdentities || cap(r.order) > 4*recentIdentities {
		t.Errorf("%d identities, order of %d (%d)", len(r.of), len(r.order), cap(r.order))
	}
	want((many-recentIdentities-1)%owners, many-recentIdentities-1, 0)
	want((many-1)%owners, many-1, 1)
	hear(owners, 1, 1, 0)
	hear(owners, 2, 2, 0) // at the cost of the oldest, not of the own one
	want(owners, 1, 1)
	for i := range 10 * recentNodes {
		hear(1, many, i, i)
	}
	want(1, many, recentNodes)
	if got := r.get(id(-1), id(many)); got[0].Node != id(10*recentNodes-1) {
		t.Error("not the newest first")
	}
}

// TestRecentKeepsTheNewest of each node, and tells what is news.
func TestRecentKeepsTheNewest(t *testing.T) {
	r, owner := newRecent(), identity.ID{9}
	who, a, b := identity.ID{1}, identity.ID{2}, identity.ID{3}
	base := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		node  identity.ID
		at    time.Duration
		news  bool
		order []time.Duration
	}{
		{a, 5, true, []time.Duration{5}},
		{a, 5, false, []time.Duration{5}},
		{a, 4, false, []time.Duration{5}},
		{b, 3, true, []time.Duration{5, 3}}, // older, but of another node
		{b, 7, true, []time.Duration{7, 5}},
		{a, 6, true, []time.Duration{7, 6}},
		{a, 9, true, []time.Duration{9, 7}},
	} {
		news := r.put(owner, &identity.Delegation{Identity: who, Node: c.node, Issued: base.Add(c.at)})
		var order []time.Duration
		for _, d := range r.get(owner, who) {
			order = append(order, d.Issued.Sub(base))
		}
		if news != c.news || !slices.Equal(order, c.order) {
			t.Errorf("%v: news %v, %v; want %v, %v", c.at, news, order, c.news, c.order)
		}
	}
}

// TestConcurrentTraffic gives the race detector something to look at.
func TestConcurrentTraffic(t *testing.T) {
	p := newPair(t)
	p.far.serve(p.bob, answer)
	p.home.serve(p.alice, answer)
	p.home.granted[p.bob] = true
	ticket, d := p.invite()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := p.call(`1`); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() { _ = p.home.Redeem(t.Context(), p.alice, ticket, d); p.home.Hints(p.far.id) })
		wg.Go(func() {
			_ = p.home.Adopt(t.Context(), p.alice, p.bob)
			p.home.Nodes(p.alice, p.bob)
			p.pass(time.Second)
		})
	}
	wg.Wait()
}
