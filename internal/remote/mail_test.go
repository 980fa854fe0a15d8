package remote

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

const uuidA, uuidB = "123e4567-e89b-42d3-a456-42661417400a", "123e4567-e89b-42d3-a456-42661417400b"

// mailbox takes mail and answers as it is told.
type mailbox struct {
	mu        sync.Mutex
	got       []*router.Mail
	answers   []error
	err       error
	available []string
}

func (b *mailbox) Deliver(_ context.Context, m *router.Mail) ([]error, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, m)
	if b.err != nil {
		return nil, b.err
	}
	return append(slices.Clone(b.answers), make([]error, len(m.Letters)-len(b.answers))...), nil
}

func (b *mailbox) Available(from, to identity.ID, protocol, instance string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.available = append(b.available, from.Short()+to.Short()+protocol+instance)
}

func (p *pair) mail(letters ...router.Letter) *router.Mail {
	return &router.Mail{From: p.alice, To: p.bob, Protocol: "Text", Instance: "default", Letters: letters}
}

func TestMailArrives(t *testing.T) {
	p := newPair(t)
	box := &mailbox{answers: []error{nil, api.Errorf(api.CodeConflict, "another %s", strings.Repeat("x", 200))}}
	p.far.ConnectPost(box)
	created := time.UnixMicro(1_800_000_000_000_001)
	sent := []router.Letter{{ID: uuidA, Created: created, Data: []byte(`{"n":9007199254740993}`)}, {ID: uuidB, Created: created}}
	out, err := p.home.Deliver(t.Context(), p.mail(sent...))
	if err != nil || len(out) != 2 || out[0] != nil || api.CodeOf(out[1]) != api.CodeConflict || len(out[1].Error()) > wire.MaxOutcome {
		t.Fatalf("answered %v, %v", out, err)
	}
	if len(box.got) != 1 {
		t.Fatalf("%d deliveries", len(box.got))
	}
	m := box.got[0]
	if m.From != p.alice || m.To != p.bob || m.Node != p.home.id || m.Protocol != "Text" || m.Instance != "default" || len(m.Letters) != 2 {
		t.Fatalf("got %+v", m)
	}
	for i, l := range m.Letters {
		if l.ID != sent[i].ID || !l.Created.Equal(created) || string(l.Data) != string(sent[i].Data) {
			t.Errorf("letter %d is %+v", i, l)
		}
	}
}

// What the receiver says of the whole mail is the sender's error.
func TestMailRefused(t *testing.T) {
	p := newPair(t)
	box := &mailbox{err: api.Refusal()}
	p.far.ConnectPost(box)
	for _, want := range []*api.Error{api.Refusal(), api.Errorf(api.CodePending, "later"), api.Errorf(api.CodeOverBudget, "full")} {
		box.err = want
		if out, err := p.home.Deliver(t.Context(), p.mail(router.Letter{ID: uuidA})); out != nil || api.CodeOf(err) != want.Code {
			t.Errorf("%s: %v, %v", want.Code, out, err)
		}
	}
	box.err = api.Errorf(api.CodeInternal, "/var/lib/fastn: disk full")
	_, err := p.home.Deliver(t.Context(), p.mail(router.Letter{ID: uuidA}))
	if api.CodeOf(err) != api.CodeHandlerFailed || strings.Contains(err.Error(), "/var") {
		t.Errorf("a failing disk is told as %v", err)
	}
	box.err, box.answers = nil, []error{api.Errorf(api.CodeStorage, "/var/lib/fastn: disk full")}
	out, err := p.home.Deliver(t.Context(), p.mail(router.Letter{ID: uuidA}))
	if err != nil || api.CodeOf(out[0]) != api.CodeHandlerFailed || strings.Contains(out[0].Error(), "/var") {
		t.Errorf("a failing disk is told as %v of one message, %v", out, err)
	}
}

// A receiver cannot claim what is ours to say, nor fewer or more than it was sent.
func TestMailOfALiar(t *testing.T) {
	p := newPair(t)
	p.far.ConnectPost(&mailbox{})
	if _, err := p.home.Deliver(t.Context(), p.mail(router.Letter{ID: uuidA})); err != nil {
		t.Fatal(err)
	}
	for name, outcomes := range map[string][]*wire.Outcome{"none": nil, "two": {{}, {}}} {
		p.far.answer = func(*wire.Frame) (*wire.Reply, []byte) { return &wire.Reply{Outcomes: outcomes}, nil }
		if _, err := p.home.Deliver(t.Context(), p.mail(router.Letter{ID: uuidA})); api.CodeOf(err) != api.CodeHandlerFailed {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.far.answer = func(*wire.Frame) (*wire.Reply, []byte) {
		return &wire.Reply{Outcomes: []*wire.Outcome{{Code: "not_permitted"}}}, nil
	}
	out, err := p.home.Deliver(t.Context(), p.mail(router.Letter{ID: uuidA}))
	if err != nil || api.CodeOf(out[0]) != api.CodeHandlerFailed {
		t.Errorf("believed %v, %v", out, err)
	}
}

// Nothing of a stranger's that is no name, id or JSON gets behind the door, nor
// anything where no mail is taken.
func TestMailThatIsNone(t *testing.T) {
	p := newPair(t)
	box := &mailbox{}
	own := p.home.delegate(p.alice, p.home.id, ttl)
	send := func(change func(*wire.Deliver), payload string) *wire.Reply {
		d := &wire.Deliver{From: own.Raw, To: p.bob[:], Protocol: "Text", Instance: "default",
			Letters: []*wire.Letter{{Id: uuidA, Size: uint32(len(payload))}}}
		change(d)
		r, _, err := p.home.ask(p.far.id, &wire.Frame{Body: &wire.Frame_Deliver{Deliver: d}}, payload)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := send(func(*wire.Deliver) {}, "1"); !api.IsRefusal(r.Err()) {
		t.Errorf("without a mailbox: %v", r)
	}
	p.far.ConnectPost(box)
	for name, c := range map[string]struct {
		change  func(*wire.Deliver)
		payload string
	}{
		"protocol": {func(d *wire.Deliver) { d.Protocol = "a b" }, "1"},
		"instance": {func(d *wire.Deliver) { d.Instance = "-" }, "1"},
		"sender":   {func(d *wire.Deliver) { d.From = p.home.delegate(p.alice, p.far.id, ttl).Raw }, "1"},
	} {
		if r := send(c.change, c.payload); !api.IsRefusal(r.Err()) || r.Delegation != nil {
			t.Errorf("%s: %v", name, r)
		}
	}
	if len(box.got) != 0 {
		t.Errorf("got %v", box.got)
	}
}

// One letter that is none, of which a receiver of another version may think
// otherwise, refuses no other; a stranger is told nothing of it.
func TestMailWithALetterThatIsNone(t *testing.T) {
	for name, bad := range map[string]struct{ id, data string }{
		"id": {"1", "1"}, "JSON": {"123e4567-e89b-42d3-a456-42661417400c", "{"}, "keys": {"123e4567-e89b-42d3-a456-42661417400d", `{"a":1,"a":2}`},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			box := &mailbox{answers: []error{nil, api.Errorf(api.CodeConflict, "another")}}
			p.far.ConnectPost(box)
			sent := p.mail(router.Letter{ID: uuidA, Data: []byte("1")}, router.Letter{ID: bad.id, Data: []byte(bad.data)}, router.Letter{ID: uuidB, Data: []byte("2")})
			out, err := p.home.Deliver(t.Context(), sent)
			if err != nil || len(out) != 3 || out[0] != nil || api.CodeOf(out[1]) != api.CodeBadRequest || api.CodeOf(out[2]) != api.CodeConflict {
				t.Fatalf("answered %v, %v", out, err)
			}
			if len(box.got) != 1 || len(box.got[0].Letters) != 2 || box.got[0].Letters[1].ID != uuidB {
				t.Errorf("got %+v", box.got)
			}
			box.err = api.Refusal()
			_, err = p.home.Deliver(t.Context(), p.mail(router.Letter{ID: bad.id, Data: []byte(bad.data)}))
			wantSaid(t, err, api.CodeRefused)
		})
	}
}

// Available is for those who may know that the sender of the mail is here.
func TestAvailable(t *testing.T) {
	p := newPair(t)
	box := &mailbox{}
	if err := p.home.Announce(t.Context(), p.alice, p.bob, "App", "default"); !api.IsRefusal(err) {
		t.Errorf("without a mailbox: %v", err)
	}
	p.far.ConnectPost(box)
	if err := p.home.Announce(t.Context(), p.alice, p.bob, "App", "default"); err != nil {
		t.Error(err)
	}
	if want := p.alice.Short() + p.bob.Short() + "Appdefault"; !slices.Equal(box.available, []string{want}) {
		t.Errorf("told %q, want %q", box.available, want)
	}
	p.far.mu.Lock()
	p.far.granted = nil
	p.far.mu.Unlock()
	if err := p.home.Announce(t.Context(), p.alice, p.bob, "App", "default"); !api.IsRefusal(err) || len(box.available) != 1 {
		t.Errorf("a stranger: %v, told %q", err, box.available)
	}
}
