package fire

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/process"
)

// unhurried raises the rates of refused opens, so that each is looked at.
var unhurried = []string{"[budgets]", "per_peer_refused_opens = 65536", "per_node_refused_opens = 65536", "per_address_refused_opens = 65536"}

// question is one that a stranger is refused, whatever is true.
type question struct {
	name    string
	frame   func(a *attacker) *wire.Frame
	payload string
}

// questions are about an identity that is here, with a program that listens and
// grants to others, and about one that is not.
func questions(here, absent identity.ID) []question {
	open := func(kind wire.Kind, to identity.ID, protocol, instance string) func(*attacker) *wire.Frame {
		return func(a *attacker) *wire.Frame {
			f := a.open(kind, to, protocol)
			f.GetOpen().Instance = instance
			return f
		}
	}
	var list []question
	add := func(name, payload string, frame func(to identity.ID) func(*attacker) *wire.Frame) {
		list = append(list, question{name + " of nobody", frame(absent), payload}, question{name, frame(here), payload})
	}
	for _, p := range [][2]string{{api.ProtocolEcho, ""}, {"absent/1", ""}, {"Shop", ""}, {"Shop", "other"}} {
		add("call "+p[0]+" "+p[1], `{"message":"x"}`, func(to identity.ID) func(*attacker) *wire.Frame {
			return open(wire.Kind_KIND_CALL, to, p[0], p[1])
		})
	}
	add("whois", "", func(to identity.ID) func(*attacker) *wire.Frame {
		return func(a *attacker) *wire.Frame {
			return &wire.Frame{Body: &wire.Frame_Whois{Whois: &wire.Whois{From: a.delegation(a.node.ID()), To: to[:]}}}
		}
	})
	add("redeem", "", func(to identity.ID) func(*attacker) *wire.Frame {
		return func(a *attacker) *wire.Frame {
			secret := identity.NewSecret()
			return &wire.Frame{Body: &wire.Frame_Redeem{Redeem: &wire.Redeem{From: a.delegation(a.node.ID()), To: to[:], Secret: secret[:]}}}
		}
	})
	add("letter", `{"text":"x"}`, func(to identity.ID) func(*attacker) *wire.Frame {
		return func(a *attacker) *wire.Frame {
			return &wire.Frame{Body: &wire.Frame_Deliver{Deliver: &wire.Deliver{From: a.delegation(a.node.ID()), To: to[:], Protocol: api.ProtocolText,
				Letters: []*wire.Letter{{Id: "6f9619ff-8b86-4d01-b42d-00c04fc964ff", Size: 12, CreatedUs: time.Now().UnixMicro()}}}}}
		}
	})
	add("available", "", func(to identity.ID) func(*attacker) *wire.Frame {
		return func(a *attacker) *wire.Frame {
			return &wire.Frame{Body: &wire.Frame_Available{Available: &wire.Available{From: a.delegation(a.node.ID()), To: to[:], Protocol: "Shop"}}}
		}
	})
	return list
}

// Whatever a stranger, or one who is blocked, asks for: it reads the same bytes,
// after the same time, whether the identity is here or not, with an identity of
// one's own for each question or always the same.
func TestPeersProbingStrangersLearnNothing(t *testing.T) {
	x, y := victims(t, unhurried...)
	here := idOf(t, y)
	listen(t, y, "Shop")
	grant(t, y, "peer", "Shop")
	populate(t, y, 200)
	blocked := newAttacker(t, tcpLoopback)
	blocked.befriend(y, "blocked")
	if err := y.Client.Verb(t.Context(), api.VerbContactBlock, api.NameArgs{Name: "blocked"}, nil); err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]*attacker{"stranger": newAttacker(t, tcpLoopback), "blocked": blocked} {
		for _, fresh := range []bool{false, true} {
			if fresh && name == "blocked" {
				continue // a new identity is not blocked
			}
			t.Run(fmt.Sprintf("%s, new identities %v", name, fresh), func(t *testing.T) {
				a.t = t
				probe(t, a, y, questions(here, p2ptest.Key(t).ID()), fresh)
			})
		}
	}
	echo(t, x)
}

// populate gives a daemon contacts that it never met: more to look through where
// an identity is here.
func populate(t *testing.T, d *process.Daemon, n int) {
	t.Helper()
	for i := range n {
		args := api.ContactAddArgs{Name: fmt.Sprintf("c%d", i), ID: p2ptest.Key(t).ID().String()}
		if err := d.Client.Verb(t.Context(), api.VerbContactAdd, args, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// probe asks all questions in turn, in an order that changes, and compares what
// comes and when with what comes for the same of nobody.
func probe(t *testing.T, a *attacker, d *process.Daemon, list []question, fresh bool) {
	refusal, err := proto.MarshalOptions{Deterministic: true}.Marshal(wire.ReplyError(api.Refusal()))
	if err != nil {
		t.Fatal(err)
	}
	s := a.stream(a.connect(d))
	defer func() { s.close() }()
	since := time.Now()
	frames := make([]*wire.Frame, len(list))
	for i, q := range list {
		frames[i] = q.frame(a)
	}
	times := make([][]time.Duration, len(list))
	for round := range testutil.Rounds(150, 4000) {
		if time.Since(since) > 5*time.Second { // strangers that are of no use are sent away
			a.leave(d)
			s, since = a.stream(a.connect(d)), time.Now()
		}
		for _, i := range rand.Perm(len(list)) {
			if fresh { // its signature is the attacker's time, not the victim's
				a.id = p2ptest.Key(t)
				frames[i] = list[i].frame(a)
			}
			begin := time.Now()
			reply, data := s.ask(frames[i], []byte(list[i].payload))
			if round >= 20 { // the first warm up
				times[i] = append(times[i], time.Since(begin))
			}
			got, err := proto.MarshalOptions{Deterministic: true}.Marshal(reply)
			if err != nil || string(got) != string(refusal) || data != nil {
				t.Fatalf("%s: answered %v %s", list[i].name, reply, data)
			}
		}
	}
	for i := 1; i < len(list); i += 2 {
		compare(t, list[i].name, times[i-1], times[i])
	}
}

// compare fails if two lists of times tell the cases apart: in the short form
// only if they are of another class.
func compare(t *testing.T, what string, nobody, here []time.Duration) {
	t.Helper()
	p := func(list []time.Duration, q float64) float64 { return float64(percentile(list, q)) / 1e3 }
	t.Logf("%-18s of nobody: p25 %6.1f, p50 %6.1f, p75 %6.1f µs; of one who is here: p25 %6.1f, p50 %6.1f, p75 %6.1f µs", what,
		p(nobody, .25), p(nobody, .5), p(nobody, .75), p(here, .25), p(here, .5), p(here, .75))
	most := 3.0
	if testutil.Torture() {
		most = 1.1
	}
	if r := p(here, .5) / p(nobody, .5); r > most || r < 1/most {
		t.Errorf("%s takes %.2f times as long where the identity is here", what, r)
	}
}
