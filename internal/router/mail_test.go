package router_test

import (
	"context"
	"errors"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// boxes are the mailboxes of a world.
type boxes struct {
	*world
	name string
}

func (b boxes) Deliver(_ context.Context, m *router.Mail) ([]error, error) {
	b.step(b.name)
	return make([]error, len(m.Letters)), nil
}

func (b boxes) TakesBuiltin(protocol, instance string) bool {
	return protocol == "Text" && instance == api.DefaultInstance
}

func (b boxes) Wanted(_ context.Context, m *router.Mail) (bool, error) {
	b.step("wanted " + m.Protocol)
	if m.Protocol == "Full" {
		return true, api.Errorf(api.CodeStorage, "the disk is full")
	}
	return m.Protocol != "Anyone", nil
}

// TestMailGoesToOneMailbox is the map of mail: which parts are asked, until which
// mailbox.
func TestMailGoesToOneMailbox(t *testing.T) {
	in := func(what string) string { return "access in " + what }
	notGranted := func(identity.ID, identity.ID, string, string) error {
		return api.Errorf(api.CodeRefused, "that is not granted to you")
	}
	tests := map[string]struct {
		m        router.Mail
		incoming func(owner, from identity.ID, protocol, instance string) error
		steps    []string
		code     api.Code
	}{
		"text, local":           {router.Mail{From: alice, To: bob, Protocol: "Text"}, nil, []string{in("Text/default"), "inbox"}, ""},
		"text, from a peer":     {router.Mail{From: carol, To: bob, Protocol: "Text", Node: carolNode}, nil, []string{in("Text/default"), "budget", "inbox"}, ""},
		"another node":          {router.Mail{From: alice, To: carol, Protocol: "Text"}, nil, []string{"access out", "another node"}, ""},
		"a program's":           {router.Mail{From: carol, To: bob, Protocol: "App", Node: carolNode}, nil, []string{in("App/default"), "budget", "inbox"}, ""},
		"a program's for calls": {router.Mail{From: carol, To: bob, Protocol: "Calls", Node: carolNode}, nil, []string{in("Calls/default"), "budget", "wanted Calls"}, api.CodePending},
		"built in for calls":    {router.Mail{From: carol, To: bob, Protocol: "Built", Node: carolNode}, nil, []string{in("Built/default")}, api.CodeBadRequest},
		"nobody serves it":      {router.Mail{From: carol, To: bob, Protocol: "New", Node: carolNode}, nil, []string{in("New/default"), "budget", "wanted New"}, api.CodePending},
		"granted to anyone":     {router.Mail{From: carol, To: bob, Protocol: "Anyone", Node: carolNode}, nil, []string{in("Anyone/default"), "budget", "wanted Anyone"}, api.CodeRefused},
		"not granted":           {router.Mail{From: carol, To: bob, Protocol: "App", Node: carolNode}, notGranted, []string{in("App/default"), "budget", "wanted App"}, api.CodePending},
		"from a stranger":       {router.Mail{From: carol, To: bob, Protocol: "App", Node: carolNode}, refuse, []string{in("App/default")}, api.CodeRefused},
		"never forwards":        {router.Mail{From: nobody, To: carol, Protocol: "Text", Node: carolNode}, nil, nil, api.CodeRefused},
		"to a local stranger":   {router.Mail{From: alice, To: bob, Protocol: "Text"}, refuse, []string{in("Text/default"), "access out", "another node"}, ""},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.rt.Post(boxes{w, "inbox"}, boxes{w, "another node"})
			w.listen(t, bob, "App", w.handler("bob's program"), router.Message)
			w.listen(t, bob, "Calls", w.handler("bob's program"), router.Call, router.Stream)
			w.set(func() { w.incoming = c.incoming })
			c.m.Letters = make([]router.Letter, 3)
			out, err := w.rt.Deliver(t.Context(), &c.m)
			wantCode(t, err, c.code)
			if api.IsRefusal(err) != (c.code == api.CodeRefused) {
				t.Errorf("answered %v, not as every stranger is", err)
			}
			if _, said := errors.AsType[*router.Said](err); said != (err != nil) {
				t.Errorf("as the receiver's word: %v", said)
			}
			wantSteps(t, w, c.steps...)
			if err == nil && len(out) != 3 {
				t.Errorf("%d answers to 3 letters", len(out))
			}
			if takes := w.rt.TakesMail(c.m.To, c.m.From, c.m.Protocol, c.m.Instance); takes != (err == nil && c.steps[len(c.steps)-1] == "inbox") {
				t.Errorf("TakesMail says %v", takes)
			}
		})
	}
}

// What our own user may not send is not the receiver's word.
func TestMailNotPermitted(t *testing.T) {
	w := newWorld()
	w.rt.Post(boxes{w, "inbox"}, boxes{w, "another node"})
	w.outgoing = func(identity.ID, identity.ID) error { return api.Errorf(api.CodeNotPermitted, "you blocked carol") }
	_, err := w.rt.Deliver(t.Context(), &router.Mail{From: alice, To: carol, Protocol: "Text"})
	wantCode(t, err, api.CodeNotPermitted)
	if _, said := errors.AsType[*router.Said](err); said {
		t.Error("passes for the receiver's word")
	}
	wantSteps(t, w, "access out")
}

// Who cannot be noted is not told to wait until it is told otherwise, and it is tried again.
func TestWantThatIsNotNoted(t *testing.T) {
	w := newWorld()
	w.rt.Post(boxes{w, "inbox"}, boxes{w, "another node"})
	m := &router.Mail{From: carol, To: bob, Protocol: "Full", Node: carolNode}
	gone, leave := context.WithCancel(t.Context())
	leave()
	for code, ctx := range map[api.Code]context.Context{api.CodeStorage: t.Context(), api.CodeCancelled: gone} {
		_, err := w.rt.Deliver(ctx, m)
		wantCode(t, err, code)
		if _, said := errors.AsType[*router.Said](err); said {
			t.Error("passes for the receiver's word")
		}
	}
}

func TestMailForOneOffline(t *testing.T) {
	w := newWorld()
	w.rt.Post(boxes{w, "inbox"}, boxes{w, "another node"})
	w.set(func() { w.online[bob] = false })
	_, err := w.rt.Deliver(t.Context(), &router.Mail{From: carol, To: bob, Protocol: "Text", Node: carolNode})
	wantCode(t, err, api.CodeOffline)
	if w.rt.TakesMail(bob, carol, "Text", api.DefaultInstance) {
		t.Error("one who is offline takes mail")
	}
}

func TestMailOverBudget(t *testing.T) {
	w := newWorld()
	w.rt.Post(boxes{w, "inbox"}, boxes{w, "another node"})
	w.budget = api.Errorf(api.CodeOverBudget, "over budget")
	_, err := w.rt.Deliver(t.Context(), &router.Mail{From: carol, To: bob, Protocol: "Text", Node: carolNode})
	wantCode(t, err, api.CodeOverBudget)
	wantSteps(t, w, "access in Text/default", "budget")
	w.budget = nil
	_, _ = w.rt.Deliver(t.Context(), &router.Mail{From: carol, To: bob, Protocol: "Text", Node: carolNode})
	if w.taken != 1 || w.given != 1 {
		t.Errorf("took %d places and gave %d back", w.taken, w.given)
	}
}

func TestNoMailbox(t *testing.T) {
	w := newWorld()
	_, err := w.rt.Deliver(t.Context(), &router.Mail{From: carol, To: bob, Protocol: "Text", Node: carolNode})
	wantCode(t, err, api.CodeUnsupported)
	if w.rt.TakesMail(bob, carol, "Text", api.DefaultInstance) {
		t.Error("takes mail without a mailbox")
	}
}
