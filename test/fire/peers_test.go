package fire

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// attacker is a node that says what it likes, with an identity of its own.
type attacker struct {
	t    testing.TB
	host host.Host
	node identity.Key
	id   identity.Key
	own  func() []byte // its delegation of its own node
}

// newAttacker makes one that listens on a multiaddr, or with an IP address one
// that only dials from there.
func newAttacker(t testing.TB, listen string) *attacker {
	t.Helper()
	a := &attacker{t: t, node: p2ptest.Key(t)}
	a.become(p2ptest.Key(t))
	var done func() error
	var err error
	if ip := net.ParseIP(listen); ip != nil {
		a.host, done, err = p2ptest.RawHostFrom(a.node, ip)
	} else {
		a.host, done, err = p2ptest.RawHost(a.node, listen)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = done() })
	return a
}

// become gives the attacker another identity.
func (a *attacker) become(id identity.Key) {
	a.id = id
	// One, as a node has it: each is remembered, up to thousands, so that new ones
	// look like a leak.
	a.own = sync.OnceValue(func() []byte { return a.delegation(a.node.ID()) })
}

// infoOf is where a daemon's node is.
func infoOf(t testing.TB, d *process.Daemon) peer.AddrInfo {
	t.Helper()
	var info peer.AddrInfo
	for _, s := range status(t, d).Node.Addresses {
		m, id := peer.SplitAddr(ma.StringCast(s))
		info.ID, info.Addrs = id, append(info.Addrs, m)
	}
	return info
}

func status(t testing.TB, d *process.Daemon) api.Status {
	t.Helper()
	var s api.Status
	if err := d.Client.Verb(t.Context(), api.VerbDaemonStatus, nil, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// connect connects to a daemon.
func (a *attacker) connect(d *process.Daemon) peer.ID {
	a.t.Helper()
	info := infoOf(a.t, d)
	if err := a.host.Connect(a.t.Context(), info); err != nil {
		a.t.Fatal(err)
	}
	return info.ID
}

// leave closes all connections to a daemon.
func (a *attacker) leave(d *process.Daemon) { _ = a.host.Network().ClosePeer(infoOf(a.t, d).ID) }

// delegation lets a node speak for the attacker's identity.
func (a *attacker) delegation(node identity.ID) []byte {
	a.t.Helper()
	d, err := identity.Delegate(a.id, node, time.Now(), time.Hour)
	if err != nil {
		a.t.Fatal(err)
	}
	return d.Raw
}

// befriend makes the attacker's identity a contact of d's, by a ticket.
func (a *attacker) befriend(d *process.Daemon, name string) {
	a.t.Helper()
	var inv api.Invitation
	if err := d.Client.Verb(a.t.Context(), api.VerbContactInvite, api.InviteArgs{For: name}, &inv); err != nil {
		a.t.Fatal(err)
	}
	ticket, _, err := identity.ParseTicket(inv.Ticket, time.Now())
	if err != nil {
		a.t.Fatal(err)
	}
	s := a.stream(a.connect(d))
	f := &wire.Frame{Body: &wire.Frame_Redeem{Redeem: &wire.Redeem{From: a.delegation(a.node.ID()), To: ticket.Identity[:], Secret: ticket.Secret[:]}}}
	if reply, _ := s.ask(f, nil); reply.GetCode() != "" {
		a.t.Fatal(reply)
	}
	s.close()
}

// open is an Open of the attacker's identity.
func (a *attacker) open(kind wire.Kind, to identity.ID, protocol string) *wire.Frame {
	return &wire.Frame{Body: &wire.Frame_Open{Open: &wire.Open{
		From: a.own(), To: to[:], Protocol: protocol, Kind: kind}}}
}

// rawStream is a stream of our protocol to a daemon.
type rawStream struct {
	t testing.TB
	network.Stream
	in     *bufio.Reader
	number uint64
}

func (a *attacker) stream(to peer.ID) *rawStream {
	a.t.Helper()
	s, err := a.tryStream(a.t.Context(), to)
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

func (a *attacker) tryStream(ctx context.Context, to peer.ID) (*rawStream, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := a.host.NewStream(network.WithNoDial(ctx, "attack"), to, p2p.Protocol)
	if err != nil {
		return nil, err
	}
	return &rawStream{t: a.t, Stream: s, in: bufio.NewReader(s)}, nil
}

func (s *rawStream) close() { _ = s.Reset() }

// bytesOf is a frame as it goes over the wire.
func bytesOf(t testing.TB, f *wire.Frame, payload []byte) []byte {
	t.Helper()
	f.PayloadSize = uint32(len(payload))
	b, err := proto.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(binary.AppendUvarint(nil, uint64(len(b))), b...), payload...)
}

// ask sends a request and reads the answer.
func (s *rawStream) ask(f *wire.Frame, payload []byte) (*wire.Reply, []byte) {
	s.t.Helper()
	reply, data, err := s.tryAsk(f, payload)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply, data
}

func (s *rawStream) tryAsk(f *wire.Frame, payload []byte) (*wire.Reply, []byte, error) {
	s.number++
	f.Number = s.number
	if _, err := s.Write(bytesOf(s.t, f, payload)); err != nil {
		return nil, nil, err
	}
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Second))
	answer, data, err := wire.ReadFrame(s.in, nil, nil)
	if err != nil {
		return nil, nil, err
	}
	if answer.GetReply() == nil || answer.Number != f.Number {
		return nil, nil, errors.New("no reply, or to another number")
	}
	return answer.GetReply(), data, nil
}

// idOf is the id of a daemon's first identity.
func idOf(t testing.TB, d *process.Daemon) identity.ID {
	t.Helper()
	id, err := identity.ParseID(status(t, d).Identities[0].ID52)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// echo makes one call of a daemon's to its peer, which must be answered.
func echo(t testing.TB, d *process.Daemon) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	begin := time.Now()
	_, err := d.Client.Call(ctx, client.Request{Target: "peer", Protocol: api.ProtocolEcho, Data: json.RawMessage(`{"message":"x"}`)})
	if err != nil {
		t.Errorf("a call while under attack: %v", err)
	}
	return time.Since(begin)
}

// footprint is what a daemon holds: of memory what is alive.
type footprint struct {
	api.Runtime
	rss float64 // KiB
}

func measure(t testing.TB, d *process.Daemon) footprint {
	t.Helper()
	rss, err := d.RSS()
	if err != nil {
		t.Fatal(err)
	}
	return footprint{*status(t, d).Daemon.Runtime, rss}
}

// eager makes a daemon collect garbage often, so that it knows what is alive.
var eager = map[string]string{"GOGC": "10"}

// rest waits until the daemon holds no more than most, or does not shrink any
// more, and returns what it holds then.
func rest(t testing.TB, d *process.Daemon, most footprint) footprint {
	t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for {
		now := measure(t, d)
		if now.within(most) || time.Now().After(deadline) {
			return now
		}
		time.Sleep(20 * time.Millisecond) // and its answer is garbage for the next collection
	}
}

// busy is how many goroutines are not only kept for the next requests.
func (f footprint) busy() int { return f.Goroutines - f.IdleGoroutines }

// heapNoise is what two looks at a heap at rest may differ by, in bytes: a few
// connections' buffers. That it does not add up is the long form's to show.
const heapNoise = 256 << 10

// within tells whether f is no more than base, but for a tenth of the heap and a
// few of what there are few of: connections come and go.
func (f footprint) within(base footprint) bool {
	return f.busy() <= base.busy()+3 &&
		f.OpenFiles <= base.OpenFiles+2 &&
		f.HeapBytes <= base.HeapBytes+max(base.HeapBytes/10, heapNoise)
}

// goroutineRest is what the runtime keeps of a goroutine for the next one.
const goroutineRest = 640

// unharmed runs an attack on y, of which x is a contact, and checks that y holds
// no more afterwards than before, but for what the runtime never gives back of the
// goroutines that there were. In the long form the attack is made again and again,
// and what is left may not be more each time. It calls look while it is at its worst.
func unharmed(t *testing.T, x, y *process.Daemon, attack func(look func())) {
	t.Helper()
	unharmedBut(t, x, y, 0, attack)
}

// unharmedBut is unharmed where y remembers something on purpose, of at most so many
// bytes.
func unharmedBut(t *testing.T, x, y *process.Daemon, remembers int64, attack func(look func())) {
	t.Helper()
	// All that a daemon has only once it had much to do.
	var crowd sync.WaitGroup
	for range 200 {
		crowd.Go(func() { echo(t, x) })
	}
	crowd.Wait()
	before := settled(t, y)
	peak := before
	var left []footprint
	for range testutil.Rounds(1, 6) {
		attack(func() { peak.raise(measure(t, y)) })
		peak.raise(measure(t, y))
		most := before
		// Looks are too few to see all goroutines that there were at a time; that
		// nothing is left each time is the long form's to show.
		most.HeapBytes += 2*int64(peak.Goroutines-before.Goroutines)*goroutineRest + remembers
		after := rest(t, y, most)
		t.Logf("goroutines at work %d, under attack %d in all, then %d; files %d, %d, %d; heap %d, %d, %d KiB; rss %.0f, %.0f, %.0f KiB",
			before.busy(), peak.Goroutines, after.busy(), before.OpenFiles, peak.OpenFiles, after.OpenFiles,
			before.HeapBytes>>10, peak.HeapBytes>>10, after.HeapBytes>>10, before.rss, peak.rss, after.rss)
		if !after.within(most) {
			t.Errorf("something is left of the attack: %+v, before it %+v", after, before)
		}
		echo(t, x)
		left = append(left, settled(t, y))
	}
	if what := climbs(left); what != "" {
		t.Errorf("each attack leaves more %s: %+v", what, left)
	}
}

// climbs names what grew with each of many rounds, "" if nothing did. The first round
// is left out, for what it leaves once.
func climbs(rounds []footprint) string {
	if len(rounds) < 5 {
		return ""
	}
	rounds = rounds[1:]
	for what, of := range map[string]func(footprint) int64{
		"goroutines": func(f footprint) int64 { return int64(f.busy()) },
		"open files": func(f footprint) int64 { return int64(f.OpenFiles) },
		// Of the heap no two looks are the same.
		"memory": func(f footprint) int64 { return f.HeapBytes / (32 << 10) },
	} {
		more := 1
		for more < len(rounds) && of(rounds[more]) > of(rounds[more-1]) {
			more++
		}
		if more == len(rounds) {
			return what
		}
	}
	return ""
}

// raise makes f the most of both.
func (f *footprint) raise(o footprint) {
	f.Goroutines, f.OpenFiles = max(f.Goroutines, o.Goroutines), max(f.OpenFiles, o.OpenFiles)
	f.HeapBytes, f.rss = max(f.HeapBytes, o.HeapBytes), max(f.rss, o.rss)
}

// settled is what a daemon holds at rest: the least of several looks.
func settled(t testing.TB, d *process.Daemon) footprint {
	t.Helper()
	base := measure(t, d)
	for range 50 {
		now := measure(t, d)
		if now.busy() < base.busy() {
			base.Goroutines, base.IdleGoroutines = now.Goroutines, now.IdleGoroutines
		}
		base.OpenFiles = min(base.OpenFiles, now.OpenFiles)
		base.HeapBytes = min(base.HeapBytes, now.HeapBytes)
		base.rss = now.rss
	}
	return base
}

// victims are a pair, of which the attacks are on y; both log little.
func victims(t *testing.T, config ...string) (x, y *process.Daemon) {
	t.Helper()
	return pair(t, process.Options{Config: config, Env: eager, Stderr: quiet{}})
}

// quiet drops a daemon's log: attacks are noisy.
type quiet struct{}

func (quiet) Write(p []byte) (int, error) { return len(p), nil }

// percentile of a list of times, from 0 to 1.
func percentile(list []time.Duration, p float64) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return list[min(int(float64(len(list))*p), len(list)-1)]
}

const (
	quicLoopback = "/ip4/127.0.0.1/udp/0/quic-v1"
	tcpLoopback  = "/ip4/127.0.0.1/tcp/0"
)

// over gives where to dial from, for each transport.
func over(t *testing.T, f func(t *testing.T, config []string, listen string)) {
	for name, config := range transports {
		t.Run(name, func(t *testing.T) {
			listen := tcpLoopback
			if name == "quic" {
				listen = quicLoopback
			}
			f(t, config, listen)
		})
	}
}
