package remote

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// told makes bob's node answer alice's call with reply and data.
func told(t *testing.T, reply *wire.Reply, data string) (string, error) {
	t.Helper()
	p := newPair(t)
	p.home.holds(p.alice, p.far.delegate(p.bob, p.far.id, ttl))
	p.far.answer = func(*wire.Frame) (*wire.Reply, []byte) { return reply, []byte(data) }
	return p.call(`1`)
}

// TestPeersTexts: what a peer writes reaches terminals and journals.
func TestPeersTexts(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"plain":            {"no such thing", "no such thing"},
		"letters":          {"schöne Grüße 日本 ☃", "schöne Grüße 日本 ☃"},
		"terminal escapes": {"a\x1b[31mred\x1b]0;t\x07", "a [31mred ]0;t "},
		"lines":            {"a\r\nb\u2028c\u0085d", "a  b c d"},
		"direction marks":  {"a\u202eb\u2066c\u200f", "a b c "},
		"zero":             {"a\x00b", "a b"},
		"not UTF-8":        {"a\xff\xfeb\xc3", "a  b "},
		"empty":            {"", "the peer answered with not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := told(t, &wire.Reply{Code: string(api.CodeNotFound), Message: c.in, Hint: c.in}, "")
			e := api.AsError(err)
			if e == nil || e.Code != api.CodeNotFound || e.Message != c.want {
				t.Fatalf("%+v", e)
			}
			if c.in != "" && e.Hint != c.want {
				t.Errorf("hint %q", e.Hint)
			}
		})
	}
	_, err := told(t, &wire.Reply{Code: string(api.CodeNotFound), Message: strings.Repeat("é", 4000), Hint: strings.Repeat("☃", 2000)}, "")
	e := api.AsError(err)
	if e == nil || len(e.Message) > wire.MaxMessage || len(e.Hint) > wire.MaxHint || !utf8.ValidString(e.Message+e.Hint) ||
		!strings.HasSuffix(e.Message, "é…") || !strings.HasSuffix(e.Hint, "☃…") {
		t.Errorf("%+v", e)
	}
}

// TestPeersCodes: a peer cannot make the caller believe that something happened
// here, or that nothing was sent.
func TestPeersCodes(t *testing.T) {
	passes := []api.Code{api.CodeBadRequest, api.CodeNotFound, api.CodeConflict, api.CodeRefused, api.CodeProtocolUnavailable,
		api.CodeOverBudget, api.CodeClockSkew, api.CodeExpired, api.CodeTimeout, api.CodeCancelled, api.CodeStalled,
		api.CodeAborted, api.CodeOffline, api.CodeTooLarge, api.CodeUnsupported, api.CodeHandlerFailed,
		api.CodeOutcomeUnknown} // the program that served ended meanwhile
	for _, code := range passes {
		_, err := told(t, &wire.Reply{Code: string(code), Message: "m"}, "")
		wantCode(t, err, code)
		if e := api.AsError(err); len(e.Peer) != 52 {
			t.Errorf("%s: what the peer says is not told as its own: %+v", code, e)
		}
	}
	for _, same := range []*api.Error{api.Refusal(), router.NoAnswer()} {
		if _, err := told(t, wire.ReplyError(same), ""); *api.AsError(err) != *same {
			t.Errorf("%+v is the words of the peer", err)
		}
	}
	for _, code := range []api.Code{api.CodePeerUnreachable, api.CodeUnavailable, api.CodeLocked,
		api.CodeNotPermitted, api.CodeInternal, "ok", "success", "peer_unreachable2"} {
		_, err := told(t, &wire.Reply{Code: string(code), Message: "m"}, "")
		wantCode(t, err, api.CodeHandlerFailed)
	}
	if data, err := told(t, &wire.Reply{Code: "refused"}, `{"forged":"answer"}`); data != "" || err == nil {
		t.Errorf("an error came with %s", data)
	}
}

// TestAnswersAreJSON: they are put into a line as they are.
func TestAnswersAreJSON(t *testing.T) {
	for _, data := range []string{`{`, `1 2`, `{"a":1,"a":1}`, "\"\xff\"", `1}` + "\n" + `{"id":"x"}`, `nil`,
		strings.Repeat("[", api.MaxDepth+1) + strings.Repeat("]", api.MaxDepth+1)} {
		got, err := told(t, &wire.Reply{}, data)
		wantCode(t, err, api.CodeHandlerFailed)
		if got != "" {
			t.Errorf("passed on %q", got)
		}
	}
	for _, data := range []string{``, `null`, `{"a": 1.50}`, `"\ud83d\ude00"`} {
		if got, err := told(t, &wire.Reply{}, data); err != nil || got != data {
			t.Errorf("%q became %q, %v", data, got, err)
		}
	}
}

// TestInternalsStayHere: paths, uids and settings of this machine are not for peers.
func TestInternalsStayHere(t *testing.T) {
	const inside = "/var/lib/fastn/store.db"
	for _, failure := range []error{
		errors.New("open " + inside),
		api.Errorf(api.CodeInternal, "open %s", inside),
		api.Errorf(api.CodeLocked, "%s is refused", inside).WithHint("chmod 0600 %s", inside),
		api.Errorf(api.CodeNotPermitted, "%s", inside),
	} {
		p := newPair(t)
		p.far.serve(p.bob, func(context.Context, *router.Request) (json.RawMessage, error) {
			return json.RawMessage(`"` + inside + `"`), failure
		})
		reply, data, err := p.home.ask(p.far.id, open(p.home.delegate(p.alice, p.home.id, ttl).Raw, p.bob), "")
		if err != nil || reply.Code != string(api.CodeHandlerFailed) || strings.Contains(reply.Message+reply.Hint+string(data), inside) {
			t.Errorf("%v: told %v %s, %v", failure, reply, data, err)
		}
	}
}

// TestNoDataWithAnError, whatever the router returns.
func TestNoDataWithAnError(t *testing.T) {
	p := newPair(t)
	p.far.Connect(p.far, func(context.Context, *router.Request) (json.RawMessage, error) {
		return json.RawMessage(`1`), api.Errorf(api.CodeConflict, "no")
	})
	reply, data, err := p.home.ask(p.far.id, open(p.home.delegate(p.alice, p.home.id, ttl).Raw, p.bob), "")
	if err != nil || data != nil || reply.Code != string(api.CodeConflict) {
		t.Errorf("%v %s, %v", reply, data, err)
	}
}

// TestEndOfAProgramCrosses: a program that ends during a call has the same
// outcome on another node as on this one.
func TestEndOfAProgramCrosses(t *testing.T) {
	p := newPair(t)
	p.far.serve(p.bob, func(context.Context, *router.Request) (json.RawMessage, error) {
		return nil, api.Errorf(api.CodeOutcomeUnknown, "the program ended")
	})
	_, err := p.call(`1`)
	wantCode(t, err, api.CodeOutcomeUnknown)
}

// TestProgramsErrorsCross: what a program says to its caller does.
func TestProgramsErrorsCross(t *testing.T) {
	p := newPair(t)
	p.far.serve(p.bob, func(context.Context, *router.Request) (json.RawMessage, error) {
		return nil, api.Errorf(api.CodeConflict, "taken").WithHint("choose another")
	})
	_, err := p.call(`1`)
	if e := api.AsError(err); e == nil || *e != (api.Error{Code: api.CodeConflict, Message: "taken", Hint: "choose another", Peer: p.bob.String()}) {
		t.Errorf("%+v", e)
	}
}
