package remote

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/router/routertest"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// TestCall: the first one asks who speaks for bob, the next one knows.
func TestCall(t *testing.T) {
	p := newPair(t)
	var seen router.Request
	p.far.serve(p.bob, func(_ context.Context, r *router.Request) (json.RawMessage, error) {
		seen = *r
		return json.RawMessage(`{"n":9007199254740993}`), nil
	})
	got, err := p.call(`{"a": 1.0}`)
	if err != nil || got != `{"n":9007199254740993}` {
		t.Fatalf("%s, %v", got, err)
	}
	if seen.From != p.alice || seen.To != p.bob || seen.Node != p.home.id || seen.Kind != router.Call ||
		string(seen.Payload) != `{"a": 1.0}` || seen.Timeout != time.Minute || seen.Instance != api.DefaultInstance {
		t.Errorf("served %+v", seen)
	}
	sent := p.wantSent(t, "whois", "open")
	if sent[0].payload != "" {
		t.Error("whois carries the payload")
	}
	if _, err := p.call(`1`); err != nil {
		t.Error(err)
	}
	sent = p.wantSent(t, "open")
	h := p.home.held[p.out]
	if len(h) != 1 || h[0].Node != p.far.id {
		t.Fatalf("the book holds %d delegations", len(h))
	}
	if have := sent[0].frame.GetOpen().HaveIssuedUs; have != h[0].Issued.UnixMicro() {
		t.Errorf("says that it holds one of %d", have)
	}
	reply, _, err := p.home.ask(p.far.id, sent[0].frame, "")
	if err != nil || reply.Code != "" || reply.Delegation != nil {
		t.Errorf("the one that is held came back: %v, %v", reply, err)
	}
}

// TestCallBack: who was called can call back, though the caller is no contact
// and no address of him is in the book.
func TestCallBack(t *testing.T) {
	p := newPair(t)
	p.far.serve(p.bob, answer)
	p.home.serve(p.alice, answer)
	p.home.granted[p.bob] = true
	back := &router.Request{From: p.bob, To: p.alice, Protocol: "App", Kind: router.Call}
	_, err := p.far.rt.Route(t.Context(), back)
	wantCode(t, err, api.CodePeerUnreachable)
	if _, err := p.call(`1`); err != nil {
		t.Fatal(err)
	}
	p.took()
	if _, err := p.far.rt.Route(t.Context(), back); err != nil {
		t.Error(err)
	}
	p.wantSent(t, "open")
}

func TestNoAddressKnown(t *testing.T) {
	p := newPair(t)
	_, err := p.home.rt.Route(t.Context(), &router.Request{From: p.alice, To: newID(t), Protocol: "App", Kind: router.Call})
	wantCode(t, err, api.CodePeerUnreachable)
	if e := api.AsError(err); !strings.HasPrefix(e.Message, "peer not reachable: no address of ") || !strings.Contains(e.Hint, "fastn contact add") {
		t.Errorf("told %+v", e)
	}
	p.wantSent(t)
}

// TestOwnNodeIsNotAskedOverTheNetwork: an identity that was here once.
func TestOwnNodeIsNotAskedOverTheNetwork(t *testing.T) {
	p := newPair(t)
	p.home.hinted[p.out] = []identity.ID{p.home.id}
	_, err := p.call(`1`)
	wantCode(t, err, api.CodePeerUnreachable)
	p.wantSent(t)
}

func TestExpiredDelegationIsAskedForAgain(t *testing.T) {
	p := newPair(t)
	p.far.serve(p.bob, answer)
	if _, err := p.call(`1`); err != nil {
		t.Fatal(err)
	}
	p.took()
	p.pass(ttl)
	if _, err := p.call(`1`); err != nil {
		t.Error(err)
	}
	p.wantSent(t, "whois", "open")
}

// TestNewerDelegationComesBack: a caller who is told that his is old keeps the
// new one, and needs no whois while both talk.
func TestNewerDelegationComesBack(t *testing.T) {
	for name, kind := range map[string]router.Kind{"call": router.Call, "stream": router.Stream} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.far.serve(p.bob, func(_ context.Context, r *router.Request) (json.RawMessage, error) {
				if r.Kind == router.Stream {
					c, err := r.Accept()
					if err != nil {
						return nil, err
					}
					_, _ = io.Copy(io.Discard, c)
					return nil, c.CloseWrite()
				}
				return nil, nil
			})
			call := func() {
				t.Helper()
				r := &router.Request{From: p.alice, To: p.bob, Protocol: "App", Kind: kind, Timeout: time.Minute}
				r.Accept = func() (router.Conn, error) {
					near, user := routertest.Pipe()
					_ = user.CloseWrite()
					return near, nil
				}
				if _, err := p.home.rt.Route(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			call()
			old := p.home.held[p.out][0]
			call()
			if p.home.held[p.out][0] != old {
				t.Error("one came back without need")
			}
			p.pass(ttl / 2)
			call()
			renewed := p.home.held[p.out][0]
			if !renewed.Issued.Equal(p.home.Now()) {
				t.Errorf("holds the one issued %v ago", p.home.Now().Sub(renewed.Issued))
			}
			p.took()
			p.pass(ttl/2 + time.Minute) // the first has expired
			call()
			p.wantSent(t, "open")
		})
	}
}

// TestNewerDelegationComesWithErrors, but not with a refusal.
func TestNewerDelegationComesWithErrors(t *testing.T) {
	for code, want := range map[api.Code]bool{
		api.CodeProtocolUnavailable: true, api.CodeBadRequest: true, api.CodeInternal: true, api.CodeRefused: false,
	} {
		p := newPair(t)
		p.far.serve(p.bob, func(context.Context, *router.Request) (json.RawMessage, error) {
			return nil, api.Errorf(code, "no")
		})
		reply, _, err := p.home.ask(p.far.id, open(p.home.delegate(p.alice, p.home.id, ttl).Raw, p.bob), "")
		if err != nil || (len(reply.Delegation) > 0) != want {
			t.Errorf("%s: %d bytes of delegation, %v", code, len(reply.GetDelegation()), err)
		}
	}
}

func TestStream(t *testing.T) {
	p := newPair(t)
	p.far.serve(p.bob, func(_ context.Context, r *router.Request) (json.RawMessage, error) {
		c, err := r.Accept()
		if err != nil {
			return nil, err
		}
		got, err := io.ReadAll(c) // answers after the end of the question
		if err != nil {
			return nil, err
		}
		if _, err := c.Write([]byte("got " + string(got) + " with " + string(r.Payload))); err != nil {
			return nil, err
		}
		return nil, c.CloseWrite()
	})
	s := p.stream(t.Context(), `{"x":1}`)
	_, _ = s.user.Write([]byte("hello"))
	_ = s.user.CloseWrite()
	got, err := io.ReadAll(s.user)
	if err != nil || string(got) != `got hello with {"x":1}` {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-s.end; err != nil {
		t.Error(err)
	}
	p.wantSent(t, "whois", "open")
}

// stream is alice's stream to bob's App, user her own end of it.
type stream struct {
	user *routertest.Conn
	end  chan error
}

func (p *pair) stream(ctx context.Context, payload string) *stream {
	near, user := routertest.Pipe()
	s := &stream{user: user, end: make(chan error, 1)}
	p.wg.Go(func() {
		_, err := p.home.rt.Route(ctx, &router.Request{From: p.alice, To: p.bob, Protocol: "App", Kind: router.Stream,
			Payload: json.RawMessage(payload), Timeout: time.Minute,
			Accept: func() (router.Conn, error) { return near, nil }})
		if err != nil {
			near.Reset(api.CodeOf(err))
		}
		s.end <- err
	})
	return s
}

// hold is a handler whose stream stays open until it breaks, which it tells.
func hold(broken chan<- error) router.HandlerFunc {
	return func(_ context.Context, r *router.Request) (json.RawMessage, error) {
		c, err := r.Accept()
		if err != nil {
			return nil, err
		}
		_, _ = c.Write([]byte("!"))
		_, err = c.Read(make([]byte, 1))
		broken <- err
		return nil, err
	}
}

func TestStreamResetsCross(t *testing.T) {
	p := newPair(t)
	broken := make(chan error, 1)
	p.far.serve(p.bob, hold(broken))
	one := make([]byte, 1)

	t.Run("the caller's", func(t *testing.T) {
		s := p.stream(t.Context(), "")
		_, _ = io.ReadFull(s.user, one)
		s.user.Reset(api.CodeStalled)
		wantCode(t, <-broken, api.CodeStalled)
		wantCode(t, <-s.end, api.CodeStalled)
	})
	t.Run("the far side's", func(t *testing.T) {
		s := p.stream(t.Context(), "")
		_, _ = io.ReadFull(s.user, one)
		p.far.mu.Lock()
		p.far.granted[p.alice] = false
		p.far.mu.Unlock()
		p.far.rt.Recheck(p.bob, p.alice, false)
		wantCode(t, <-broken, api.CodeRefused)
		wantCode(t, <-s.end, api.CodeRefused)
		_, err := s.user.Read(one)
		wantCode(t, err, api.CodeRefused)
		p.far.granted[p.alice] = true
	})
	t.Run("the end of the caller", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := p.stream(ctx, "")
		_, _ = io.ReadFull(s.user, one)
		cancel()
		wantCode(t, <-broken, api.CodeCancelled)
		wantCode(t, <-s.end, api.CodeCancelled)
	})
}

func TestStreamIsNotOpened(t *testing.T) {
	p := newPair(t)
	s := p.stream(t.Context(), "")
	wantCode(t, <-s.end, api.CodeProtocolUnavailable)

	// The local caller goes away while the far side has accepted.
	broken := make(chan error, 1)
	p.far.serve(p.bob, hold(broken))
	_, err := p.home.rt.Route(t.Context(), &router.Request{From: p.alice, To: p.bob, Protocol: "App", Kind: router.Stream,
		Accept: func() (router.Conn, error) { return nil, api.Errorf(api.CodeUnavailable, "gone") }})
	wantCode(t, err, api.CodeUnavailable)
	wantCode(t, <-broken, api.CodeCancelled)

	// A peer that answers an error and opens a stream all the same.
	p.far.answer = func(*wire.Frame) (*wire.Reply, []byte) {
		return &wire.Reply{Code: string(api.CodeOffline), Message: "no"}, nil
	}
	s = p.stream(t.Context(), "")
	wantCode(t, <-s.end, api.CodeOffline)
}

// TestTimeouts: what the caller allows goes with a call, bounded.
func TestTimeouts(t *testing.T) {
	p := newPair(t)
	var seen time.Duration
	p.far.serve(p.bob, func(ctx context.Context, r *router.Request) (json.RawMessage, error) {
		seen = r.Timeout
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > r.Timeout {
			t.Errorf("deadline %v, %v for %v", deadline, ok, r.Timeout)
		}
		return nil, nil
	})
	raw := p.home.delegate(p.alice, p.home.id, ttl).Raw
	for ms, want := range map[uint32]time.Duration{0: api.DefaultTimeout, 250: 250 * time.Millisecond, 1 << 31: api.MaxTimeout} {
		f := open(raw, p.bob)
		f.GetOpen().TimeoutMs = ms
		if reply, _, err := p.home.ask(p.far.id, f, ""); err != nil || reply.Code != "" || seen != want {
			t.Errorf("%d ms: %v, %v, served with %v", ms, reply, err, seen)
		}
	}
}
