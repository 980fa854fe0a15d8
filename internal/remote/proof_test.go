package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// TestNodeMustSpeakForTarget: whatever a node answers to whois, nothing is sent
// to it that is meant for bob unless bob says that it speaks for him.
func TestNodeMustSpeakForTarget(t *testing.T) {
	for name, delegation := range map[string]func(p *pair, poser identity.ID) []byte{
		"nothing":               func(*pair, identity.ID) []byte { return nil },
		"garbage":               func(*pair, identity.ID) []byte { return []byte("bob says yes") },
		"for bob's true node":   func(p *pair, _ identity.ID) []byte { return p.far.delegate(p.bob, p.far.id, ttl).Raw },
		"for the caller's node": func(p *pair, _ identity.ID) []byte { return p.far.delegate(p.bob, p.home.id, ttl).Raw },
		"of another identity":   func(p *pair, poser identity.ID) []byte { return p.far.delegate(p.far.user(), poser, ttl).Raw },
		"of the caller himself": func(p *pair, poser identity.ID) []byte { return p.home.delegate(p.alice, poser, ttl).Raw },
		"expired": func(p *pair, poser identity.ID) []byte {
			d := p.far.delegate(p.bob, poser, time.Second)
			p.pass(time.Second)
			return d.Raw
		},
		"changed": func(p *pair, poser identity.ID) []byte {
			raw := slices.Clone(p.far.delegate(p.bob, poser, ttl).Raw)
			raw[len(raw)-1] ^= 1
			return raw
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			poser := p.node()
			p.home.hinted[p.out] = []identity.ID{poser.id}
			raw := delegation(p, poser.id)
			poser.answer = func(*wire.Frame) (*wire.Reply, []byte) { return &wire.Reply{Delegation: raw}, []byte(`"bob"`) }
			got, err := p.call(`{"secret":1}`)
			want := api.CodeRefused
			if name == "expired" {
				want = api.CodeClockSkew
			}
			wantCode(t, err, want)
			if got != "" {
				t.Errorf("answered %s", got)
			}
			p.wantSent(t, "whois")
			if len(p.home.held[p.out]) != 0 || len(p.home.lately.get(p.alice, p.bob)) != 0 {
				t.Error("the false delegation is remembered")
			}
		})
	}
}

// TestReplyCannotPlantADelegation: what a reply carries is checked as well;
// what is wrong with it does not spoil the answer.
func TestReplyCannotPlantADelegation(t *testing.T) {
	for name, delegation := range map[string]func(p *pair) []byte{
		"garbage":             func(*pair) []byte { return []byte("x") },
		"of another identity": func(p *pair) []byte { return p.far.delegate(p.far.user(), p.far.id, ttl).Raw },
		"for another node":    func(p *pair) []byte { return p.far.delegate(p.bob, newID(p.t), ttl).Raw },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			held := p.far.delegate(p.bob, p.far.id, ttl)
			p.home.holds(p.alice, held)
			p.pass(time.Minute)
			raw := delegation(p)
			p.far.answer = func(*wire.Frame) (*wire.Reply, []byte) { return &wire.Reply{Delegation: raw}, []byte(`1`) }
			if got, err := p.call(`1`); err != nil || got != `1` {
				t.Errorf("%s, %v", got, err)
			}
			if h := p.home.held[p.out]; len(h) != 1 || h[0] != held {
				t.Error("the book changed")
			}
			if len(p.home.lately.of) != 0 {
				t.Error("the false delegation is remembered")
			}
		})
	}
}

// TestSenderIsProven: an Open counts only from a node that its sender lets
// speak for him.
func TestSenderIsProven(t *testing.T) {
	for name, from := range map[string]func(p *pair, thief identity.ID) []byte{
		"replayed from elsewhere": func(p *pair, _ identity.ID) []byte { return p.home.delegate(p.alice, p.home.id, ttl).Raw },
		"garbage":                 func(*pair, identity.ID) []byte { return []byte("alice") },
		"changed": func(p *pair, thief identity.ID) []byte {
			raw := slices.Clone(p.home.delegate(p.alice, thief, ttl).Raw)
			raw[len(raw)-1] ^= 1
			return raw
		},
		"revoked": func(p *pair, thief identity.ID) []byte {
			old := p.home.delegate(p.alice, thief, ttl)
			p.pass(time.Minute)
			short := p.home.delegate(p.alice, thief, time.Second)
			if _, err := p.far.Verifier.Verify(short.Raw, thief, p.far.Now()); err != nil {
				p.t.Fatal(err)
			}
			p.pass(time.Second)
			return old.Raw
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.far.serve(p.bob, answer)
			thief := p.node()
			raw := from(p, thief.id)
			for what, f := range map[string]*wire.Frame{"open": open(raw, p.bob), "whois": whois(raw, p.bob),
				"redeem": redeem(raw, p.bob, identity.Secret{1})} {
				reply, data, err := thief.ask(p.far.id, f, "")
				if err != nil {
					t.Fatal(err)
				}
				wantRefusal(t, reply)
				if data != nil {
					t.Errorf("%s was answered %s", what, data)
				}
			}
			if !slices.Equal(p.far.refused, make([]identity.ID, 3)) {
				t.Errorf("counted for %v", p.far.refused)
			}
			if len(p.far.lately.of) != 0 {
				t.Error("the false delegation is remembered")
			}
		})
	}
}

// TestHonestSenderPasses shows that the table above fails for its reasons.
func TestHonestSenderPasses(t *testing.T) {
	p := newPair(t)
	p.far.serve(p.bob, answer)
	reply, data, err := p.home.ask(p.far.id, open(p.home.delegate(p.alice, p.home.id, ttl).Raw, p.bob), "1")
	if err != nil || reply.Code != "" || string(data) != "1" || len(reply.Delegation) == 0 {
		t.Errorf("%v %s, %v", reply, data, err)
	}
}

// TestClockSkew: a wrong time is told with ours, whatever was asked for and
// whoever asks, and before anything is looked up.
func TestClockSkew(t *testing.T) {
	for name, skew := range map[string]time.Duration{"ahead": identity.MaxSkew + time.Second, "behind": -ttl} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.far.serve(p.bob, answer)
			p.home.skew = skew
			raw := p.home.delegate(p.alice, p.home.id, ttl).Raw
			p.far.limited = func(from identity.ID) bool { return !from.IsZero() } // would be asked next
			p.far.Delegator, p.far.Book = nil, nil                                // as would these
			now := p.far.Now()
			for what, f := range map[string]*wire.Frame{
				"open": open(raw, p.bob), "nobody": open(raw, newID(t)), "whois": whois(raw, p.bob),
				"redeem": redeem(raw, p.bob, identity.Secret{1}),
			} {
				reply, data, err := p.home.ask(p.far.id, f, "")
				if err != nil {
					t.Fatal(err)
				}
				if reply.Code != string(api.CodeClockSkew) || reply.ReceiverTimeUs != now.UnixMicro() || data != nil ||
					!strings.Contains(reply.Message, now.UTC().Format(time.RFC3339)) || reply.Delegation != nil {
					t.Errorf("%s: %v", what, reply)
				}
			}
			if !slices.Equal(p.far.refused, make([]identity.ID, 4)) {
				t.Errorf("of 4 wrong times were counted %v", p.far.refused)
			}
		})
	}
	t.Run("of a known node", func(t *testing.T) {
		p := newPair(t)
		p.far.Known = func(node identity.ID) bool { return node == p.home.id }
		p.home.skew = time.Hour
		reply, _, err := p.home.ask(p.far.id, open(p.home.delegate(p.alice, p.home.id, ttl).Raw, p.bob), "")
		if err != nil || reply.Code != string(api.CodeClockSkew) || len(p.far.refused) != 0 {
			t.Errorf("%v, %v; counted %v", reply, err, p.far.refused)
		}
	})
	t.Run("of a program here", func(t *testing.T) {
		p := newPair(t)
		p.far.serve(p.bob, func(context.Context, *router.Request) (json.RawMessage, error) {
			return nil, api.Errorf(api.CodeClockSkew, "the times in the data disagree")
		})
		_, err := p.call(`1`)
		wantCode(t, err, api.CodeClockSkew)
		if len(p.far.refused) != 0 {
			t.Errorf("counted %v", p.far.refused)
		}
	})
	t.Run("the caller is told", func(t *testing.T) {
		p := newPair(t)
		p.home.holds(p.alice, p.far.delegate(p.bob, p.far.id, ttl))
		p.home.skew = time.Hour
		_, err := p.call(`1`)
		wantCode(t, err, api.CodeClockSkew)
		if want := p.far.Now().UTC().Format(time.RFC3339); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v does not tell %s", err, want)
		}
	})
	t.Run("within bounds", func(t *testing.T) {
		p := newPair(t)
		p.far.serve(p.bob, answer)
		p.home.skew = identity.MaxSkew
		if _, err := p.call(`1`); err != nil {
			t.Error(err)
		}
	})
}

func redeem(raw []byte, to identity.ID, s identity.Secret) *wire.Frame {
	return &wire.Frame{Body: &wire.Frame_Redeem{Redeem: &wire.Redeem{From: raw, To: to[:], Secret: s[:]}}}
}
