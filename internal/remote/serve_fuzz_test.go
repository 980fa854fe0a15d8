package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// How FuzzServeFrame proves who sends, and whom it asks for.
const (
	provenStranger = 1 << iota // else the frame's own bytes
	provenContact
	forBob // else whom the frame names
)

// checkedPost takes all mail of a contact, as the router would, and looks whether
// it is what a mailbox may be given.
type checkedPost struct {
	t       *testing.T
	contact identity.ID
}

func (p checkedPost) Deliver(_ context.Context, mail *router.Mail) ([]error, error) {
	if mail.From != p.contact {
		return nil, api.Refusal()
	}
	for _, l := range mail.Letters {
		if !api.ValidUUID(l.ID) || len(l.Data) > 0 && api.Scan(l.Data) != nil {
			p.t.Errorf("a letter %q with %q", l.ID, l.Data)
		}
	}
	return make([]error, len(mail.Letters)), nil
}

func (checkedPost) Available(_, _ identity.ID, _, _ string) {}

// FuzzServeFrame is a node that sends any frame that the wire takes: a stranger
// gets the constant refusal and reaches nobody, and what a contact gets through
// is what it may be.
func FuzzServeFrame(f *testing.F) {
	add := func(frame *wire.Frame, payload string) {
		var b bytes.Buffer
		if _, err := wire.WriteFrame(&b, frame, []byte(payload)); err != nil {
			f.Fatal(err)
		}
		for _, who := range []byte{0, provenStranger | forBob, provenContact | forBob, provenContact} {
			f.Add(b.Bytes(), who)
		}
	}
	raw, to := []byte("delegation"), identity.ID{1}
	add(open(raw, to), `{"a":1}`)
	add(open(raw, to), `{"a":1,"a":2}`)
	add(whois(raw, to), "")
	add(redeem(raw, to, identity.Secret{1}), "")
	add(&wire.Frame{Body: &wire.Frame_Available{Available: &wire.Available{From: raw, To: to[:], Protocol: "App"}}}, "")
	add(&wire.Frame{Body: &wire.Frame_Deliver{Deliver: &wire.Deliver{From: raw, To: to[:], Protocol: "App", Letters: []*wire.Letter{
		{Id: "123e4567-e89b-42d3-a456-426614174000", Size: 1}, {Id: "123e4567-e89b-42d3-a456-426614174001", Size: 2}}}}}, `1""`)
	add(&wire.Frame{Body: &wire.Frame_Deliver{Deliver: &wire.Deliver{From: raw, To: to[:], Protocol: "App", Letters: []*wire.Letter{{Id: "mine", Size: 1}}}}}, `{`)
	f.Fuzz(func(t *testing.T, raw []byte, who byte) {
		frame, payload, err := wire.ReadFrame(bufio.NewReader(bytes.NewReader(raw)), nil, nil)
		if err != nil || frame.GetReply() != nil || frame.GetCancel() != nil || frame.GetAborted() != nil {
			return // these are not for here
		}
		p := newPair(t)
		contact := who&provenContact != 0
		p.far.ConnectPost(checkedPost{t, p.alice})
		p.far.serve(p.bob, func(_ context.Context, r *router.Request) (json.RawMessage, error) {
			if !contact || r.From != p.alice || len(r.Payload) > 0 && api.Scan(r.Payload) != nil {
				t.Errorf("served %+v", r)
			}
			return r.Payload, nil
		})
		from := p.alice
		if !contact {
			from = p.home.user()
		}
		claim(frame, p, from, who)
		reply, data := p.far.ServeFrame(t.Context(), p.home.id, netip.Addr{}, frame, payload,
			func(*wire.Reply) (router.Conn, error) { return nil, api.Errorf(api.CodeAborted, "no stream here") })
		if err := (&wire.Frame{Body: &wire.Frame_Reply{Reply: reply}}).Validate(); err != nil || reply.Code == string(api.CodeInternal) {
			t.Fatalf("%v: %v", reply, err)
		}
		if !contact {
			wantRefusal(t, reply)
			if data != nil || len(p.far.lately.of) != 0 {
				t.Errorf("a stranger gets %q and is remembered %d times", data, len(p.far.lately.of))
			}
		}
	})
}

// claim proves the sender of frame, and addresses it, as who says.
func claim(frame *wire.Frame, p *pair, from identity.ID, who byte) {
	set := func(raw, to *[]byte) {
		if who&(provenStranger|provenContact) != 0 {
			*raw = p.home.delegate(from, p.home.id, ttl).Raw
		}
		if who&forBob != 0 {
			*to = p.bob[:]
		}
	}
	switch b := frame.Body.(type) {
	case *wire.Frame_Open:
		set(&b.Open.From, &b.Open.To)
	case *wire.Frame_Whois:
		set(&b.Whois.From, &b.Whois.To)
	case *wire.Frame_Redeem:
		set(&b.Redeem.From, &b.Redeem.To)
	case *wire.Frame_Deliver:
		set(&b.Deliver.From, &b.Deliver.To)
	case *wire.Frame_Available:
		set(&b.Available.From, &b.Available.To)
	}
}
