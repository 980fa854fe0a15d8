package fire

import (
	"bufio"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"google.golang.org/protobuf/proto"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// poser is a node that answers every Whois with what it has, and keeps what it is
// sent.
type poser struct {
	*attacker

	mu     sync.Mutex
	answer []byte         // the delegation of a Reply
	asked  [][]byte       // delegations of those who asked
	got    map[string]int // frames by kind
}

func newPoser(t *testing.T) *poser {
	p := &poser{attacker: newAttacker(t, quicLoopback), got: make(map[string]int)}
	p.host.SetStreamHandler(p2p.Protocol, func(s network.Stream) {
		defer func() { _ = s.Reset() }()
		for in := bufio.NewReader(s); ; {
			f, _, err := wire.ReadFrame(in, nil, nil)
			if err != nil {
				return
			}
			reply := &wire.Frame{Number: f.Number, Body: &wire.Frame_Reply{Reply: &wire.Reply{Delegation: p.note(f)}}}
			if _, err := s.Write(bytesOf(t, reply, []byte(`"posed"`))); err != nil {
				return
			}
		}
	})
	return p
}

// note keeps a frame and gives the answer.
func (p *poser) note(f *wire.Frame) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := f.GetWhois(); w != nil {
		p.got["whois"]++
		p.asked = append(p.asked, w.GetFrom())
	} else {
		p.got[fmt.Sprintf("%T", f.Body)]++
	}
	return p.answer
}

// calledAs makes a daemon call an identity whose contact says that it lives at
// the poser's node, which answers with a delegation. It tells how often the poser
// was sent more than a Whois. The contact is removed.
func (p *poser) calledAs(d *process.Daemon, name string, id identity.ID, answer []byte) (data json.RawMessage, sent int, err error) {
	p.t.Helper()
	p.mu.Lock()
	p.answer = answer
	clear(p.got)
	p.mu.Unlock()
	address := fmt.Sprintf("%s/p2p/%s", p.host.Addrs()[0], p.host.ID())
	args := api.ContactAddArgs{Name: name, ID: id.String(), Address: address}
	if err := d.Client.Verb(p.t.Context(), api.VerbContactAdd, args, nil); err != nil {
		p.t.Fatal(err)
	}
	defer func() {
		if err := d.Client.Verb(p.t.Context(), api.VerbContactRemove, api.NameArgs{Name: name}, nil); err != nil {
			p.t.Fatal(err)
		}
	}()
	data, err = d.Client.Call(p.t.Context(), client.Request{Target: name, Protocol: api.ProtocolEcho, Data: json.RawMessage(`{"message":"secret"}`)})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.got["whois"] == 0 {
		p.t.Errorf("%s: the poser was not asked who it is", name)
	}
	for kind, n := range p.got {
		if kind != "whois" {
			sent += n
		}
	}
	return data, sent, err
}

// A node that says it speaks for somebody is sent nothing but the question,
// unless that somebody says so too; and what it is told of those who ask it, their
// delegations, opens no door for it elsewhere.
func TestPeersThatPose(t *testing.T) {
	x, y := victims(t, unhurried...)
	p, other := newPoser(t), p2ptest.Key(t)
	unharmed(t, y, x, func(look func()) {
		pose(t, x, p, other)
		look()
		p.leave(x)
	})
	if len(p.asked) == 0 {
		t.Fatal("nobody asked")
	}
	wantRefused(t, p.attacker, y, map[string][]byte{"the delegation of a contact who asked it": last(p.asked)})
	echo(t, x)
}

// pose answers the questions of a daemon that looks for somebody in each way that is
// not true, then as it is. other is not the poser's node.
func pose(t *testing.T, x *process.Daemon, p *poser, other identity.Key) {
	t.Helper()
	node := p.node.ID()
	delegate := func(key identity.Key, node identity.ID, issued time.Time, ttl time.Duration) []byte {
		d, err := identity.Delegate(key, node, issued, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return d.Raw
	}
	now := time.Now()
	for name, answer := range map[string]func(bob identity.Key) []byte{
		"nothing":         func(identity.Key) []byte { return nil },
		"garbage":         func(identity.Key) []byte { return []byte("bob says yes") },
		"another-node":    func(bob identity.Key) []byte { return delegate(bob, other.ID(), now, time.Hour) },
		"callers-node":    func(bob identity.Key) []byte { return delegate(bob, nodeOf(t, x), now, time.Hour) },
		"another-one":     func(identity.Key) []byte { return delegate(other, node, now, time.Hour) },
		"the-callers-own": func(identity.Key) []byte { p.mu.Lock(); defer p.mu.Unlock(); return last(p.asked) },
		"expired":         func(bob identity.Key) []byte { return delegate(bob, node, now.Add(-2*time.Hour), time.Hour) },
		"of-the-future":   func(bob identity.Key) []byte { return delegate(bob, node, now.Add(time.Hour), time.Hour) },
		"changed":         func(bob identity.Key) []byte { return flipped(delegate(bob, node, now, time.Hour)) },
		"another-type":    func(bob identity.Key) []byte { return peerRecord(t, bob) },
	} {
		bob := p2ptest.Key(t)
		data, sent, err := p.calledAs(x, name, bob.ID(), answer(bob))
		want := api.CodeRefused
		if name == "expired" || name == "of-the-future" {
			want = api.CodeClockSkew // by whose clock, only the user can tell
		}
		if api.CodeOf(err) != want {
			t.Errorf("%s: answered %s, %v", name, data, err)
		}
		if sent != 0 {
			t.Errorf("%s: the poser was sent %d frames that were meant for another", name, sent)
		}
	}
	// So that the table fails for its reasons: bob himself says so.
	bob := p2ptest.Key(t)
	if data, sent, err := p.calledAs(x, "honest", bob.ID(), delegate(bob, node, now, time.Hour)); err != nil || sent != 1 || string(data) != `"posed"` {
		t.Errorf("a node that may speak for bob: answered %s, %v; %d frames", data, err, sent)
	}
}

// Delegations that are true, of one who is a contact, count only from the node
// that they name, until a newer one ends, and are no other kind of envelope.
func TestPeersReplayedDelegations(t *testing.T) {
	x, y := victims(t, unhurried...)
	friend, thief := newAttacker(t, tcpLoopback), newAttacker(t, tcpLoopback)
	friend.befriend(y, "friend")
	unharmed(t, x, y, func(look func()) {
		replay(t, y, friend, thief)
		look()
		friend.leave(y)
		thief.leave(y)
	})
}

// replay shows a daemon delegations of its contact friend that must not count.
func replay(t *testing.T, y *process.Daemon, friend, thief *attacker) {
	t.Helper()
	to := idOf(t, y)
	delegate := func(ttl time.Duration) []byte {
		d, err := identity.Delegate(friend.id, friend.node.ID(), time.Now(), ttl)
		if err != nil {
			t.Fatal(err)
		}
		return d.Raw
	}
	s := friend.stream(friend.connect(y))
	says := func(raw []byte) string {
		t.Helper()
		f := friend.open(wire.Kind_KIND_CALL, to, api.ProtocolEcho)
		f.GetOpen().From = raw
		reply, _ := s.ask(f, []byte(`{"message":"x"}`))
		return reply.GetCode()
	}
	older := delegate(time.Hour)
	if code := says(older); code != "" {
		t.Fatalf("an honest friend is told %s", code)
	}
	wantRefused(t, thief, y, map[string][]byte{"a contact's for its own node": older})
	wantRefused(t, friend, y, map[string][]byte{
		"garbage": []byte("delegation"), "changed": flipped(older),
		"a peer record": peerRecord(t, friend.id), "a ticket": ticketEnvelope(t, friend),
	})
	revoking := delegate(time.Second)
	if code := says(revoking); code != "" {
		t.Fatalf("a shorter delegation is answered %s", code)
	}
	for says(revoking) == "" { // until it ends
		time.Sleep(20 * time.Millisecond)
	}
	if code := says(older); code != string(api.CodeRefused) {
		t.Errorf("an older delegation that was revoked is answered %q", code)
	}
}

// wantRefused asks a daemon in each way with delegations, and wants the constant
// refusal, byte for byte.
func wantRefused(t *testing.T, a *attacker, d *process.Daemon, delegations map[string][]byte) {
	t.Helper()
	to, secret := idOf(t, d), identity.NewSecret()
	marshal := func(r *wire.Reply) string {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	want := marshal(wire.ReplyError(api.Refusal()))
	s := a.stream(a.connect(d))
	defer s.close()
	for name, raw := range delegations {
		open := a.open(wire.Kind_KIND_CALL, to, api.ProtocolEcho)
		open.GetOpen().From = raw
		for what, f := range map[string]*wire.Frame{
			"call":   open,
			"whois":  {Body: &wire.Frame_Whois{Whois: &wire.Whois{From: raw, To: to[:]}}},
			"redeem": {Body: &wire.Frame_Redeem{Redeem: &wire.Redeem{From: raw, To: to[:], Secret: secret[:]}}},
		} {
			if reply, data := s.ask(f, nil); marshal(reply) != want || data != nil {
				t.Errorf("%s with %s: answered %v %s", what, name, reply, data)
			}
		}
	}
}

func nodeOf(t *testing.T, d *process.Daemon) identity.ID {
	t.Helper()
	id, err := identity.ParseID(status(t, d).Node.ID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func last(list [][]byte) []byte {
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1]
}

// flipped has one bit of the signature turned.
func flipped(raw []byte) []byte {
	raw = append([]byte(nil), raw...)
	raw[len(raw)-1] ^= 1
	return raw
}

// peerRecord is libp2p's own kind of envelope, signed by an identity.
func peerRecord(t *testing.T, key identity.Key) []byte {
	t.Helper()
	e, err := record.Seal(&peer.PeerRecord{PeerID: key.ID().PeerID(), Seq: uint64(time.Now().UnixMicro())}, key.PrivKey())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// ticketEnvelope is a ticket of the attacker's, which holds its delegation too.
func ticketEnvelope(t *testing.T, a *attacker) []byte {
	t.Helper()
	text, err := identity.Ticket{Identity: a.id.ID(), Delegation: a.delegation(a.node.ID()), Addresses: []string{"/ip4/127.0.0.1/tcp/9"},
		Expires: time.Now().Add(time.Minute), Secret: identity.NewSecret()}.Seal(a.id)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding).DecodeString(strings.TrimPrefix(text, "fastn1"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
