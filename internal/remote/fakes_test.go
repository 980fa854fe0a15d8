package remote

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/router/routertest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

const ttl = 7 * 24 * time.Hour

func newKey(t testing.TB) identity.Key {
	t.Helper()
	k, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newID(t testing.TB) identity.ID { return newKey(t).ID() }

// network joins nodes in memory. It checks every frame as the wire does.
type network struct {
	t     testing.TB
	mu    sync.Mutex
	now   time.Time
	nodes map[identity.ID]*node
	sent  []sent
	wg    sync.WaitGroup // of streams that are served
}

// sent is one frame that was carried.
type sent struct {
	to      identity.ID
	frame   *wire.Frame
	payload string
}

func newNetwork(t testing.TB) *network {
	testutil.LeakCheck(t)
	n := &network{t: t, now: time.Unix(1_800_000_000, 0), nodes: make(map[identity.ID]*node)}
	t.Cleanup(n.wg.Wait)
	return n
}

// took gives the frames carried since the last call, as "whois", "open" or "redeem".
func (n *network) took() (kinds []string, all []sent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	all, n.sent = n.sent, nil
	for _, s := range all {
		switch s.frame.Body.(type) {
		case *wire.Frame_Whois:
			kinds = append(kinds, "whois")
		case *wire.Frame_Open:
			kinds = append(kinds, "open")
		case *wire.Frame_Redeem:
			kinds = append(kinds, "redeem")
		}
	}
	return kinds, all
}

// node is one machine: a Remote, a real router, and all that they stand on.
type node struct {
	*Remote
	net  *network
	id   identity.ID
	rt   *router.Router
	skew time.Duration // of its clock

	mu          sync.Mutex
	keys        map[identity.ID]identity.Key
	issued      map[identity.ID]*identity.Delegation
	contacts    map[heard]bool                   // whose delegations the book keeps
	held        map[heard][]*identity.Delegation // the book, newest first
	hinted      map[heard][]identity.ID          // the book's nodes of an identity
	granted     map[identity.ID]bool             // who may use what lives here
	limited     func(from identity.ID) bool
	refused     []identity.ID
	tickets     map[identity.Secret]func(by identity.ID) error
	unreachable bool
	lost        int   // so many answers are lost on their way from here
	failing     error // of PutDelegation
	// answer, if set, answers frames instead of the Remote: a peer that lies.
	answer func(*wire.Frame) (*wire.Reply, []byte)
}

var _ Transport = (*node)(nil)

func (n *network) node() *node {
	x := &node{net: n, id: newID(n.t),
		keys: make(map[identity.ID]identity.Key), issued: make(map[identity.ID]*identity.Delegation),
		contacts: make(map[heard]bool), held: make(map[heard][]*identity.Delegation),
		hinted: make(map[heard][]identity.ID), granted: make(map[identity.ID]bool),
		tickets: make(map[identity.Secret]func(identity.ID) error)}
	x.Remote = New(Parts{Node: x.id, Delegator: x, Book: book{x}, Gate: gate{x}, Verifier: identity.NewVerifier(nil), Now: x.Now})
	x.rt = router.New(router.Parts{Residence: x, Access: x, Budget: x, Remote: x.Remote})
	x.Connect(x, x.rt.Route)
	n.nodes[x.id] = x
	return x
}

// user makes an identity that lives at x.
func (x *node) user() identity.ID {
	k := newKey(x.net.t)
	x.keys[k.ID()] = k
	return k.ID()
}

// serve makes h the handler of protocol "App" of id, which lives at x.
func (x *node) serve(id identity.ID, h router.HandlerFunc) {
	x.net.t.Helper()
	if _, err := x.rt.Listen(0, id, "App", "", []router.Kind{router.Call, router.Stream}, h); err != nil {
		x.net.t.Fatal(err)
	}
}

// delegate issues a delegation of a user of x, to any node, from now on.
func (x *node) delegate(id, to identity.ID, life time.Duration) *identity.Delegation {
	x.net.t.Helper()
	d, err := identity.Delegate(x.keys[id], to, x.Now(), life)
	if err != nil {
		x.net.t.Fatal(err)
	}
	return d
}

func (x *node) holds(owner identity.ID, d *identity.Delegation) {
	x.mu.Lock()
	defer x.mu.Unlock()
	of := heard{owner, d.Identity}
	x.held[of] = slices.Insert(x.held[of], 0, d)
}

func (x *node) Now() time.Time {
	x.net.mu.Lock()
	defer x.net.mu.Unlock()
	return x.net.now.Add(x.skew)
}

func (n *network) pass(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now = n.now.Add(d)
}

// Delegation is that of the roster: renewed at half of its life.
func (x *node) Delegation(id identity.ID) (*identity.Delegation, error) {
	now := x.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.keys[id]; !ok {
		return nil, api.Errorf(api.CodeNotFound, "no such identity")
	}
	if d := x.issued[id]; d != nil && now.Before(d.Issued.Add(ttl/2)) {
		return d, nil
	}
	d, err := identity.Delegate(x.keys[id], x.id, now, ttl)
	x.issued[id] = d
	return d, err
}

func (x *node) Here(id identity.ID) (here, online bool) {
	_, here = x.keys[id]
	return here, here
}

func (x *node) Incoming(owner, from identity.ID, _, _ string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.granted[from] {
		return nil
	}
	return api.Refusal()
}

func (x *node) Outgoing(identity.ID, identity.ID) error { return nil }

func (x *node) Owner(identity.ID) (uint32, bool)                            { return 0, true }
func (x *node) AcquirePeer(_, _ identity.ID, _ router.Kind) (func(), error) { return func() {}, nil }

// book and gate are the node as Book and Gate.
type (
	book struct{ *node }
	gate struct{ *node }
)

func (b book) Delegations(owner, id identity.ID) []*identity.Delegation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.held[heard{owner, id}])
}

func (b book) PutDelegation(_ context.Context, owner identity.ID, d *identity.Delegation) error {
	of := heard{owner, d.Identity}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failing != nil {
		return b.failing
	}
	if !b.contacts[of] {
		return nil
	}
	for i, old := range b.held[of] {
		if old.Node == d.Node {
			if d.Issued.After(old.Issued) {
				b.held[of][i] = d
			}
			return nil
		}
	}
	b.held[of] = append(b.held[of], d)
	return nil
}

func (b book) Nodes(owner, id identity.ID) []identity.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.hinted[heard{owner, id}])
}

func (g gate) MayWhois(owner, from identity.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, here := g.keys[owner]
	return here && (g.granted[from] || g.contacts[heard{owner, from}])
}

func (g gate) Limited(from, _ identity.ID, _ netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limited != nil && g.limited(from)
}

func (g gate) Refused(from, _ identity.ID, _ netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused = append(g.refused, from)
}

func (g gate) Redeem(_ context.Context, owner, by identity.ID, s identity.Secret) error {
	g.mu.Lock()
	use := g.tickets[s]
	_, here := g.keys[owner]
	g.mu.Unlock()
	if use == nil || !here {
		return api.Refusal()
	}
	return use(by)
}

// reach finds the other end and checks what is carried there.
func (x *node) reach(to identity.ID, f *wire.Frame, payload []byte) (*node, *wire.Frame, error) {
	far := x.net.nodes[to]
	if far == nil || far.unreachable {
		return nil, nil, api.Errorf(api.CodePeerUnreachable, "node %s is not there", to.Short())
	}
	f = proto.Clone(f).(*wire.Frame)
	f.PayloadSize = uint32(len(payload))
	if err := f.Validate(); err != nil {
		return nil, nil, err
	}
	x.net.mu.Lock()
	x.net.sent = append(x.net.sent, sent{to, f, string(payload)})
	x.net.mu.Unlock()
	return far, f, nil
}

// ask is what a peer at x sends, honest or not.
func (x *node) ask(to identity.ID, f *wire.Frame, payload string) (*wire.Reply, []byte, error) {
	return x.Request(context.Background(), to, f, []byte(payload))
}

func (x *node) Request(ctx context.Context, to identity.ID, f *wire.Frame, payload []byte) (*wire.Reply, []byte, error) {
	far, f, err := x.reach(to, f, payload)
	if err != nil {
		return nil, nil, err
	}
	if far.answer != nil {
		reply, data := far.answer(f)
		return reply, data, nil
	}
	reply, data := far.ServeFrame(ctx, x.id, netip.Addr{}, f, payload, func(*wire.Reply) (router.Conn, error) {
		panic("a request was accepted as a stream")
	})
	if far.lost > 0 {
		far.lost--
		return nil, nil, api.Errorf(api.CodeOutcomeUnknown, "the connection to the peer broke")
	}
	if reply == nil {
		reply = &wire.Reply{}
	}
	return reply, data, (&wire.Frame{Body: &wire.Frame_Reply{Reply: reply}}).Validate()
}

func (x *node) OpenStream(ctx context.Context, to identity.ID, f *wire.Frame, payload []byte) (router.Conn, *wire.Reply, []byte, error) {
	far, f, err := x.reach(to, f, payload)
	if err != nil {
		return nil, nil, nil, err
	}
	near, there := routertest.Pipe()
	if far.answer != nil {
		reply, _ := far.answer(f)
		return near, reply, nil, nil
	}
	answered := make(chan *wire.Reply, 1)
	x.net.wg.Go(func() {
		accepted := false
		reply, _ := far.ServeFrame(context.Background(), x.id, netip.Addr{}, f, payload, func(r *wire.Reply) (router.Conn, error) {
			accepted = true
			answered <- r
			return there, nil
		})
		if !accepted {
			answered <- reply
		}
		_ = there.Close()
	})
	select {
	case reply := <-answered:
		if reply.GetCode() != "" {
			return nil, reply, nil, nil
		}
		return near, reply, nil, nil
	case <-ctx.Done():
		near.Reset(api.CodeCancelled)
		return nil, nil, nil, router.Ended(ctx)
	}
}

// pair is alice at home who may call bob at far, and knows where he lives.
type pair struct {
	*network
	home, far  *node
	alice, bob identity.ID
	out, back  heard // alice of bob, bob of alice
}

func newPair(t testing.TB) *pair {
	n := newNetwork(t)
	p := &pair{network: n, home: n.node(), far: n.node()}
	p.alice, p.bob = p.home.user(), p.far.user()
	p.out, p.back = heard{p.alice, p.bob}, heard{p.bob, p.alice}
	p.home.contacts[p.out] = true
	p.home.hinted[p.out] = []identity.ID{p.far.id}
	p.far.granted[p.alice] = true
	return p
}

// call makes alice call bob's App.
func (p *pair) call(data string) (string, error) {
	p.t.Helper()
	out, err := p.home.rt.Route(context.Background(), &router.Request{From: p.alice, To: p.bob, Protocol: "App",
		Kind: router.Call, Payload: json.RawMessage(data), Timeout: time.Minute})
	return string(out), err
}

// open is the frame with which a user of x, proven by raw, calls to's App.
func open(raw []byte, to identity.ID) *wire.Frame {
	return &wire.Frame{Body: &wire.Frame_Open{Open: &wire.Open{From: raw, To: to[:], Protocol: "App",
		Instance: api.DefaultInstance, Kind: wire.Kind_KIND_CALL, TimeoutMs: 60_000}}}
}

func whois(raw []byte, to identity.ID) *wire.Frame {
	return &wire.Frame{Body: &wire.Frame_Whois{Whois: &wire.Whois{From: raw, To: to[:]}}}
}

// answer is a handler that answers with its question.
func answer(_ context.Context, r *router.Request) (json.RawMessage, error) { return r.Payload, nil }

func wantCode(t *testing.T, err error, want api.Code) {
	t.Helper()
	if api.CodeOf(err) != want {
		t.Errorf("got %q (%v), want %q", api.CodeOf(err), err, want)
	}
}

func (n *network) wantSent(t *testing.T, want ...string) []sent {
	t.Helper()
	kinds, all := n.took()
	if !slices.Equal(kinds, want) {
		t.Errorf("sent %q, want %q", kinds, want)
	}
	return all
}
