package fire

import (
	"fmt"
	"math/rand/v2"
	"strings"
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
	stream  bool // it has one of its own
	times   []time.Duration
}

// questions are about an identity that is here, with a program that listens and
// grants to others, and about one that is not.
func questions(here, absent identity.ID) []*question {
	open := func(kind wire.Kind, to identity.ID, protocol, instance string) func(*attacker) *wire.Frame {
		return func(a *attacker) *wire.Frame {
			f := a.open(kind, to, protocol)
			f.GetOpen().Instance = instance
			return f
		}
	}
	var list []*question
	add := func(name, payload string, frame func(to identity.ID) func(*attacker) *wire.Frame) {
		for who, to := range map[string]identity.ID{" of nobody": absent, "": here} {
			list = append(list, &question{name: name + who, frame: frame(to), payload: payload, stream: strings.HasPrefix(name, "stream")})
		}
	}
	for kind, what := range map[wire.Kind]string{wire.Kind_KIND_CALL: "call", wire.Kind_KIND_STREAM: "stream"} {
		for _, p := range [][2]string{{api.ProtocolEcho, ""}, {absentProtocol, ""}, {"Shop", ""}, {"Shop", "other"}} {
			add(strings.TrimSpace(what+" "+p[0]+" "+p[1]), `{"message":"x"}`, func(to identity.ID) func(*attacker) *wire.Frame {
				return open(kind, to, p[0], p[1])
			})
		}
	}
	add("whois", "", func(to identity.ID) func(*attacker) *wire.Frame {
		return func(a *attacker) *wire.Frame {
			return &wire.Frame{Body: &wire.Frame_Whois{Whois: &wire.Whois{From: a.own(), To: to[:]}}}
		}
	})
	add("redeem", "", func(to identity.ID) func(*attacker) *wire.Frame {
		return func(a *attacker) *wire.Frame {
			secret := identity.NewSecret()
			return &wire.Frame{Body: &wire.Frame_Redeem{Redeem: &wire.Redeem{From: a.own(), To: to[:], Secret: secret[:]}}}
		}
	})
	add("letter", `{"text":"x"}`, func(to identity.ID) func(*attacker) *wire.Frame {
		return func(a *attacker) *wire.Frame {
			return &wire.Frame{Body: &wire.Frame_Deliver{Deliver: &wire.Deliver{From: a.own(), To: to[:], Protocol: api.ProtocolText,
				Letters: []*wire.Letter{{Id: "6f9619ff-8b86-4d01-b42d-00c04fc964ff", Size: 12, CreatedUs: time.Now().UnixMicro()}}}}}
		}
	})
	add("available", "", func(to identity.ID) func(*attacker) *wire.Frame {
		return func(a *attacker) *wire.Frame {
			return &wire.Frame{Body: &wire.Frame_Available{Available: &wire.Available{From: a.own(), To: to[:], Protocol: "Shop"}}}
		}
	})
	return list
}

// absentProtocol is one that nobody serves, with a name as long as of one that is not
// granted.
const absentProtocol = "Nope"

// alike are questions that must not be told apart: the same of nobody and of one who
// is here, and what is not there and what is not granted.
func alike(list []*question) (pairs [][2]*question) {
	by := make(map[string]*question)
	for _, q := range list {
		by[q.name] = q
	}
	for _, q := range list {
		if nobody := by[q.name+" of nobody"]; nobody != nil {
			pairs = append(pairs, [2]*question{nobody, q})
		}
	}
	for _, kind := range []string{"call ", "stream "} {
		absent := by[kind+absentProtocol]
		pairs = append(pairs, [2]*question{absent, by[kind+"Shop"]}, [2]*question{absent, by[kind+"Shop other"]}, [2]*question{absent, by[kind+api.ProtocolEcho]})
	}
	return pairs
}

// rememberedOf is what a daemon remembers of an identity that asked, in bytes: that its
// signature was good, its newest delegation and how often it was refused.
const rememberedOf = 3 << 9

// Whatever a stranger, or one who is blocked, asks for: it reads the same bytes,
// after the same time, whether the identity is here or not, and whether the protocol
// is, with an identity of one's own for each question or always the same; and all
// that is left of it is what is remembered of those identities.
func TestPeersProbingStrangersLearnNothing(t *testing.T) {
	x, y := victims(t, unhurried...)
	here := idOf(t, y)
	listen(t, y, "Shop")
	grant(t, y, "peer", "Shop")
	populate(t, y, 200)
	blocked := newAttacker(t, tcpLoopback)
	blocked.befriend(y, "blocked")
	block(t, y, "blocked")
	blocked.leave(y)
	for name, a := range map[string]*attacker{"stranger": newAttacker(t, tcpLoopback), "blocked": blocked} {
		for _, fresh := range []bool{false, true} {
			if fresh && name == "blocked" {
				continue // a new identity is not blocked
			}
			t.Run(fmt.Sprintf("%s, new identities %v", name, fresh), func(t *testing.T) {
				a.t = t
				list := questions(here, p2ptest.Key(t).ID())
				rounds, remembers := testutil.Rounds(120, 800), 0
				if fresh {
					remembers = rounds * len(list) * rememberedOf
				}
				unharmedBut(t, x, y, int64(remembers), func(look func()) {
					probe(t, a, y, list, rounds, fresh)
					look()
					a.leave(y)
				})
				for _, p := range alike(list) {
					compare(t, p[0], p[1])
				}
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

// probe asks all questions in turn, in an order that changes, and notes how long each
// answer takes, which must be the constant refusal.
func probe(t *testing.T, a *attacker, d *process.Daemon, list []*question, rounds int, fresh bool) {
	t.Helper()
	id := a.connect(d)
	s, since := a.stream(id), time.Now()
	defer func() { s.close() }()
	frames := make([]*wire.Frame, len(list))
	for i, q := range list {
		frames[i] = q.frame(a)
	}
	for round := range rounds {
		if time.Since(since) > 5*time.Second { // strangers that are of no use are sent away
			a.leave(d)
			id = a.connect(d)
			s, since = a.stream(id), time.Now()
		}
		for _, i := range rand.Perm(len(list)) {
			if fresh { // its signature is the attacker's time, not the victim's
				a.become(p2ptest.Key(t))
				frames[i] = list[i].frame(a)
			}
			on := s
			begin := time.Now()
			if list[i].stream {
				on = a.stream(id)
			}
			reply, data := on.ask(frames[i], []byte(list[i].payload))
			if round >= 20 { // the first warm up
				list[i].times = append(list[i].times, time.Since(begin))
			}
			if on != s {
				on.close()
			}
			if !isRefusal(t, reply) || data != nil {
				t.Fatalf("%s: answered %v %s", list[i].name, reply, data)
			}
		}
	}
}

// isRefusal tells whether a reply is the constant refusal, byte for byte.
func isRefusal(t *testing.T, reply *wire.Reply) bool {
	t.Helper()
	marshal := func(r *wire.Reply) string {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return marshal(reply) == marshal(wire.ReplyError(api.Refusal()))
}

// compare fails if two lists of times tell the cases apart: in the short form
// only if they are of another class.
func compare(t *testing.T, a, b *question) {
	t.Helper()
	p := func(q *question, at float64) float64 { return float64(percentile(q.times, at)) / 1e3 }
	t.Logf("%-24s p25 %6.1f, p50 %6.1f, p75 %6.1f µs; %-18s p25 %6.1f, p50 %6.1f, p75 %6.1f µs",
		a.name, p(a, .25), p(a, .5), p(a, .75), b.name, p(b, .25), p(b, .5), p(b, .75))
	most := 3.0
	if testutil.Torture() {
		most = 1.1
	}
	if r := p(b, .5) / p(a, .5); r > most || r < 1/most {
		t.Errorf("%s takes %.2f times as long as %s", b.name, r, a.name)
	}
}
