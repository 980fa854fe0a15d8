package remote

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

func marshal(t *testing.T, r *wire.Reply) string {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wantRefusal: exactly the constant one.
func wantRefusal(t *testing.T, r *wire.Reply) {
	t.Helper()
	e := api.Refusal()
	want := &wire.Reply{Code: string(e.Code), Message: e.Message, Hint: e.Hint}
	if marshal(t, r) != marshal(t, want) {
		t.Errorf("answered %v", r)
	}
}

// TestStrangersLearnNothing: byte for byte one answer, whatever is true here.
func TestStrangersLearnNothing(t *testing.T) {
	p := newPair(t)
	p.far.serve(p.bob, answer)
	stranger := p.home.user()
	raw := p.home.delegate(stranger, p.home.id, ttl).Raw
	change := func(f func(*wire.Open)) *wire.Frame {
		frame := open(raw, p.bob)
		f(frame.GetOpen())
		return frame
	}
	nobody := newID(t)
	asked := map[string]struct {
		f       *wire.Frame
		payload string
	}{
		"served":                 {open(raw, p.bob), "1"},
		"no such identity":       {open(raw, nobody), "1"},
		"no such protocol":       {change(func(o *wire.Open) { o.Protocol = "None" }), "1"},
		"no such instance":       {change(func(o *wire.Open) { o.Instance = "two" }), "1"},
		"a stream":               {change(func(o *wire.Open) { o.Kind = wire.Kind_KIND_STREAM }), "1"},
		"holds the newest":       {change(func(o *wire.Open) { o.HaveIssuedUs = 1 << 60 }), "1"},
		"bad JSON":               {open(raw, p.bob), "{"},
		"bad JSON for nobody":    {open(raw, nobody), "{"},
		"duplicate keys":         {open(raw, p.bob), `{"a":1,"a":2}`},
		"no payload":             {open(raw, p.bob), ""},
		"protocol with a space":  {change(func(o *wire.Open) { o.Protocol = "a b" }), "1"},
		"instance that is none":  {change(func(o *wire.Open) { o.Instance = "/etc" }), "1"},
		"whois":                  {whois(raw, p.bob), ""},
		"whois of nobody":        {whois(raw, nobody), ""},
		"ticket that is none":    {redeem(raw, p.bob, identity.Secret{1}), ""},
		"ticket of nobody":       {redeem(raw, nobody, identity.Secret{1}), ""},
		"a third node's user":    {open(raw, p.alice), "1"},
		"whois of the own user":  {whois(raw, p.alice), ""},
		"an identity at our own": {open(raw, stranger), "1"},
	}
	for name, c := range asked {
		var reply *wire.Reply
		var err error
		if c.f.GetOpen().GetKind() == wire.Kind_KIND_STREAM {
			_, reply, _, err = p.home.OpenStream(t.Context(), p.far.id, c.f, []byte(c.payload))
		} else {
			var data []byte
			reply, data, err = p.home.ask(p.far.id, c.f, c.payload)
			if data != nil {
				t.Errorf("%s: answered %s", name, data)
			}
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantRefusal(t, reply)
	}
	// Not even a delegation is kept: that takes longer where the identity is here.
	if len(p.far.lately.of) != 0 {
		t.Error("the stranger is remembered")
	}
	want := slices.Repeat([]identity.ID{stranger}, len(asked))
	if !slices.Equal(p.far.refused, want) {
		t.Errorf("%d refusals were counted of %d", len(p.far.refused), len(asked))
	}
}

// TestBadRequestsOfContacts: also who has a grant sends no odd names and no
// broken JSON to a program.
func TestBadRequestsOfContacts(t *testing.T) {
	p := newPair(t)
	p.far.serve(p.bob, func(context.Context, *router.Request) (json.RawMessage, error) {
		t.Error("served")
		return nil, nil
	})
	raw := p.home.delegate(p.alice, p.home.id, ttl).Raw
	for name, c := range map[string]struct {
		change  func(*wire.Open)
		payload string
	}{
		"bad JSON":              {func(*wire.Open) {}, `{"a":1,}`},
		"two values":            {func(*wire.Open) {}, `1 2`},
		"bad UTF-8":             {func(*wire.Open) {}, "\"\xff\""},
		"protocol with a space": {func(o *wire.Open) { o.Protocol = "a b" }, ""},
		"odd instance":          {func(o *wire.Open) { o.Instance = "a b" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(raw, p.bob)
			c.change(f.GetOpen())
			reply, _, err := p.home.ask(p.far.id, f, c.payload)
			if err != nil {
				t.Fatal(err)
			}
			wantRefusal(t, reply)
		})
	}
}

func TestWhoisAnswersWhoMayCall(t *testing.T) {
	p := newPair(t)
	raw := p.home.delegate(p.alice, p.home.id, ttl).Raw
	reply, _, err := p.home.ask(p.far.id, whois(raw, p.bob), "")
	if err != nil || reply.Code != "" {
		t.Fatalf("%v, %v", reply, err)
	}
	d, err := p.home.Verifier.Verify(reply.Delegation, p.far.id, p.home.Now())
	if err != nil || d.Identity != p.bob {
		t.Errorf("%+v, %v", d, err)
	}
	// A key that is refused is nobody's business.
	delete(p.far.keys, p.bob)
	p.far.keys[p.bob] = identity.Key{}
	p.far.issued = make(map[identity.ID]*identity.Delegation)
	reply, _, err = p.home.ask(p.far.id, whois(raw, p.bob), "")
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, reply)
}

// TestLimited: a node that is over its rate is answered without more work, an
// identity that is, without being remembered.
func TestLimited(t *testing.T) {
	for name, limited := range map[string]func(identity.ID) bool{
		"node":     func(from identity.ID) bool { return from.IsZero() },
		"identity": func(from identity.ID) bool { return !from.IsZero() },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.far.serve(p.bob, answer)
			raw := p.home.delegate(p.alice, p.home.id, ttl).Raw
			p.far.limited = limited
			if name == "node" {
				p.far.Verifier = nil // not even a signature is checked
			}
			for _, f := range []*wire.Frame{open(raw, p.bob), whois(raw, p.bob), redeem(raw, p.bob, identity.Secret{})} {
				reply, _, err := p.home.ask(p.far.id, f, "")
				if err != nil {
					t.Fatal(err)
				}
				wantRefusal(t, reply)
			}
			if len(p.far.lately.of) != 0 {
				t.Error("remembered")
			}
		})
	}
}

func TestUnknownFrame(t *testing.T) {
	p := newPair(t)
	reply, _ := p.far.ServeFrame(t.Context(), p.home.id, netip.Addr{}, &wire.Frame{Body: &wire.Frame_Cancel{Cancel: &wire.Cancel{}}}, nil, nil)
	if reply.GetCode() != string(api.CodeUnsupported) {
		t.Errorf("answered %v", reply)
	}
}
