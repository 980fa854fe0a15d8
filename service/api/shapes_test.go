package api_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// The four shapes that the project started from stay as they are, byte for byte.
func TestSeedShapes(t *testing.T) {
	for _, line := range []string{
		`{"id":"uuid","type":"call","target":"peer_id52","protocol":"Echo","data":{"message":"hello"}}`,
		`{"id":"uuid","type":"stream","target":"peer_id52","protocol":"Shell","data":{"command":"interactive_shell"}}`,
	} {
		r, id, ok, err := api.ParseRequest([]byte(line))
		if err != nil || !ok || id != "uuid" {
			t.Fatalf("%s: %q, %v, %v", line, id, ok, err)
		}
		if got := string(api.AppendRequest(nil, r)); got != line+"\n" {
			t.Errorf("written as %s", got)
		}
	}
	answers := map[string]string{
		string(api.AppendAnswer(nil, "uuid", api.StatusOK, []byte(`{"echoed":"Echo: hello"}`))):                                             `{"id":"uuid","status":"ok","data":{"echoed":"Echo: hello"}}`,
		string(api.AppendAnswer(nil, "uuid", api.StatusStreaming, nil)):                                                                     `{"id":"uuid","status":"streaming"}`,
		string(api.AppendError(nil, "uuid", false, &api.Error{Code: api.CodePeerUnreachable, Message: "peer not reachable: …", Hint: "…"})): `{"id":"uuid","status":"error","data":"peer not reachable: …","code":"peer_unreachable","hint":"…"}`,
		string(api.AppendError(nil, "", true, api.Errorf(api.CodeBadRequest, "a\nb"))):                                                      `{"id":null,"status":"error","data":"a\nb","code":"bad_request"}`,
	}
	for got, want := range answers {
		if got != want+"\n" {
			t.Errorf("got  %swant %s", got, want)
		}
	}
}

func TestTimeout(t *testing.T) {
	for ms, want := range map[int64]time.Duration{0: api.DefaultTimeout, 1: time.Millisecond, 3_600_000: time.Hour, 3_600_001: time.Hour,
		math.MaxInt64/int64(time.Millisecond) + 1: time.Hour, math.MaxInt64: time.Hour} {
		if got := (&api.Request{TimeoutMS: ms}).Timeout(); got != want {
			t.Errorf("%d ms allow %v, want %v", ms, got, want)
		}
	}
}

// A line stays one line and the same JSON, whatever stands between tokens.
func TestAnswerStaysOneLine(t *testing.T) {
	got := string(api.AppendAnswer(nil, "a\"\n<é", "ok", []byte("{\"a\":\r\n[1.0,\n9007199254740993]}")))
	if want := `{"id":"a\"\n<é","status":"ok","data":{"a":  [1.0, 9007199254740993]}}` + "\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseRequestLimits(t *testing.T) {
	data := func(n int) string {
		return `{"id":"1","type":"call","data":"` + strings.Repeat("x", n-2) + `"}`
	}
	if _, _, _, err := api.ParseRequest([]byte(data(api.MaxPayload))); err != nil {
		t.Errorf("the longest data: %v", err)
	}
	if _, id, ok, err := api.ParseRequest([]byte(data(api.MaxPayload + 1))); api.CodeOf(err) != api.CodeTooLarge || !ok || id != "1" {
		t.Errorf("longer data: %q, %v, %v", id, ok, err)
	}
	longest := strings.Repeat("é", api.MaxID/2)
	if r, _, _, err := api.ParseRequest([]byte(`{"id":"` + longest + `","type":"x"}`)); err != nil || r.ID != longest {
		t.Errorf("the longest id: %v", err)
	}
	if _, _, ok, err := api.ParseRequest([]byte(`{"id":"` + longest + `x","type":"x"}`)); err == nil || ok {
		t.Errorf("a longer id: %v, %v", ok, err)
	}
	// Members may come in any order, and the first fault is told of by its place.
	_, id, ok, err := api.ParseRequest([]byte(`{"type":"call","data":{"a":[1,}},"id":"late"}`))
	if err == nil || ok || id != "" || !strings.Contains(err.Error(), "at byte 30") {
		t.Errorf("got %q, %v, %v", id, ok, err)
	}
}

func TestDecodeArgs(t *testing.T) {
	var a api.GrantArgs
	for bad, want := range map[string]string{
		`{"who":1}`:                `"data": "who" must be a string`,
		`{"who":null}`:             `"data": "who" may not be null`,
		`{"whom":"x"}`:             `"data": unknown member "whom"; there is instance, protocol, who`,
		`{"Who":"x"}`:              `"data": unknown member "Who"; there is instance, protocol, who`,
		`{"who":"a","WHO":"b"}`:    `"data": unknown member "WHO"; there is instance, protocol, who`,
		`{"who":"a","\u0077ho":1}`: `"data": duplicate key "who" at byte 21`,
		`[]`:                       `"data" must be an object`,
		`"x"`:                      `"data" must be an object`,
		`null`:                     `"data" must be an object`,
	} {
		if err := api.DecodeArgs([]byte(bad), &a); api.CodeOf(err) != api.CodeBadRequest || err.Error() != want {
			t.Errorf("%s: %v, want %s", bad, err, want)
		}
	}
	if err := api.DecodeArgs([]byte(`{"who":"bob","protocol":"P"}`), &a); err != nil || a.Who != "bob" || a.Protocol != "P" {
		t.Errorf("%+v, %v", a, err)
	}
	if err := api.DecodeArgs(nil, &a); err != nil {
		t.Errorf("no data: %v", err)
	}
	for bad, want := range map[string]string{
		`{"cursor":-1}`:        `"data": "cursor" must be a whole number, 0 or more`,
		`{"kinds":"reloaded"}`: `"data": "kinds" must be an array, each a string`,
	} {
		if err := api.DecodeArgs([]byte(bad), new(api.SubscribeArgs)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", bad, err, want)
		}
	}
	if err := api.CheckArgs([]byte(`{"a":1}`), nil); err == nil || err.Error() != `"data": unknown member "a"; there is none` {
		t.Errorf("arguments where there are none: %v", err)
	}
}

// The error of a reply is as strict as arguments are.
func TestReplyErrorMembers(t *testing.T) {
	for _, bad := range []string{`{"Code":"not_found","message":"x"}`, `{"message":"x","more":1}`, `{"message":1}`, `[]`, `null`} {
		_, _, _, err := api.ParseRequest([]byte(`{"id":"1","type":"reply","error":` + bad + `}`))
		if api.CodeOf(err) != api.CodeBadRequest || !strings.Contains(err.Error(), `"error"`) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	r, _, _, err := api.ParseRequest([]byte(`{"id":"1","type":"reply","error":{"code":"not_found","message":"x","hint":"y"}}`))
	if want := (api.Error{Code: api.CodeNotFound, Message: "x", Hint: "y"}); err != nil || *r.Error != want {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{"a": true, "Work-2_b.c": true, "": false, "-a": false, ".a": false, "a b": false, "é": false, "a/b": false,
		strings.Repeat("x", api.MaxName): true, strings.Repeat("x", api.MaxName+1): false} {
		if err := api.ValidName("the name", name); (err == nil) != ok {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for p, ok := range map[string]bool{"Echo": true, "acme.example/tally/v1": true, "": false, "a b": false, "é": false, "a\n": false,
		strings.Repeat("x", api.MaxProtocol): true, strings.Repeat("x", api.MaxProtocol+1): false} {
		if err := api.ValidProtocol(p); (err == nil) != ok {
			t.Errorf("protocol %q: %v", p, err)
		}
	}
}
