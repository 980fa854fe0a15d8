package builtin_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/builtin"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/router/routertest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

func call(t *testing.T, protocol string, kind router.Kind, payload string) (json.RawMessage, error) {
	t.Helper()
	h := builtin.Handlers()[protocol]
	if h == nil {
		t.Fatalf("no built-in %s", protocol)
	}
	var data json.RawMessage
	if payload != "" {
		data = json.RawMessage(payload)
	}
	return h.Serve(t.Context(), &router.Request{Protocol: protocol, Kind: kind, Payload: data})
}

func TestEchoCall(t *testing.T) {
	long := strings.Repeat("a", 1000)
	wide := strings.Repeat("é", 999) + "😀" // 1,000 characters, 2,002 bytes
	tests := map[string]struct{ in, out string }{
		"the seed":          {`{"message":"hello"}`, `{"echoed":"Echo: hello"}`},
		"one character":     {`{"message":"x"}`, `{"echoed":"Echo: x"}`},
		"a space":           {`{"message":" "}`, `{"echoed":"Echo:  "}`},
		"1,000 characters":  {`{"message":"` + long + `"}`, `{"echoed":"Echo: ` + long + `"}`},
		"1,001 characters":  {`{"message":"` + long + `a"}`, ""},
		"1,000 wide ones":   {`{"message":"` + wide + `"}`, `{"echoed":"Echo: ` + wide + `"}`},
		"1,001 wide ones":   {`{"message":"` + wide + `é"}`, ""},
		"escapes are read":  {`{"message":"\u00e9\ud83d\ude00"}`, `{"echoed":"Echo: é😀"}`},
		"markup stays":      {`{"message":"<b>&amp;</b>"}`, `{"echoed":"Echo: <b>&amp;</b>"}`},
		"quotes are kept":   {`{"message":"\"\\\n\u0000"}`, `{"echoed":"Echo: \"\\\n\u0000"}`},
		"more members":      {`{"to":1,"message":"x"}`, `{"echoed":"Echo: x"}`},
		"empty":             {`{"message":""}`, ""},
		"missing":           {`{}`, ""},
		"null message":      {`{"message":null}`, ""},
		"not a string":      {`{"message":1}`, ""},
		"null":              {`null`, ""},
		"a string":          {`"hello"`, ""},
		"an array":          {`[{"message":"hello"}]`, ""},
		"a number":          {`1`, ""},
		"nothing":           {"", ""},
		"not JSON":          {`{"message":`, ""},
		"another case":      {`{"Message":"hello"}`, ""},
		"another as well":   {`{"message":"a","Message":"b"}`, `{"echoed":"Echo: a"}`},
		"message and empty": {`{"message":"a","MESSAGE":null}`, `{"echoed":"Echo: a"}`},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			data, err := call(t, api.ProtocolEcho, router.Call, c.in)
			if string(data) != c.out {
				t.Errorf("got %s (%v), want %s", data, err, c.out)
			}
			if c.out == "" && api.CodeOf(err) != api.CodeBadRequest {
				t.Errorf("error %v", err)
			}
			if c.out != "" && (err != nil || !json.Valid(data)) {
				t.Errorf("answer %s, %v", data, err)
			}
		})
	}
}

func TestEchoTellsTheLimit(t *testing.T) {
	_, err := call(t, api.ProtocolEcho, router.Call, `{"message":"`+strings.Repeat("é", 1001)+`"}`)
	if err == nil || err.Error() != "the message has 1001 characters, the limit is 1000" {
		t.Errorf("got %v", err)
	}
}

// stream serves one Echo stream and gives the caller's end.
func stream(t *testing.T) (far, near *routertest.Conn, end chan error) {
	testutil.LeakCheck(t)
	near, far = routertest.Pipe()
	end = make(chan error, 1)
	go func() {
		_, err := builtin.Handlers()[api.ProtocolEcho].Serve(context.Background(), &router.Request{
			Protocol: api.ProtocolEcho, Kind: router.Stream,
			Accept: func() (router.Conn, error) { return near, nil }})
		end <- err
	}()
	return far, near, end
}

func TestEchoStream(t *testing.T) {
	far, near, end := stream(t)
	sent := make([]byte, 3<<20+5)
	_, _ = rand.Read(sent)
	wrote := make(chan error, 1)
	go func() {
		_, err := far.Write(sent)
		if err == nil {
			err = far.CloseWrite() // what is on its way comes back after it
		}
		wrote <- err
	}()
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if err := <-end; err != nil {
		t.Error(err)
	}
	if near.Closes() != 1 || near.Resets() != nil {
		t.Errorf("closed %d times, resets %q", near.Closes(), near.Resets())
	}
}

// left is a stream that ended when it began.
type left struct{}

func (left) Read([]byte) (int, error)    { return 0, io.EOF }
func (left) Write(p []byte) (int, error) { return len(p), nil }
func (left) CloseWrite() error           { return nil }
func (left) Reset(api.Code)              {}
func (left) Close() error                { return nil }

// Streams that are opened and left at once cost no new buffer each: to collect
// those made all others wait.
func TestEchoStreamsUseBuffersAgain(t *testing.T) {
	r := &router.Request{Protocol: api.ProtocolEcho, Kind: router.Stream, Accept: func() (router.Conn, error) { return left{}, nil }}
	echo := builtin.Handlers()[api.ProtocolEcho]
	var before, after runtime.MemStats
	const n = 200
	runtime.ReadMemStats(&before)
	for range n {
		if _, err := echo.Serve(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > 48<<10 {
		t.Errorf("a stream costs %d bytes", each)
	}
}

func TestEchoStreamIsReset(t *testing.T) {
	far, near, end := stream(t)
	_, _ = far.Write([]byte("x"))
	if _, err := far.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	far.Reset(api.CodeStalled)
	if err := <-end; api.CodeOf(err) != api.CodeStalled {
		t.Errorf("got %v", err)
	}
	if near.Closes() != 1 {
		t.Errorf("a stream that was reset is closed %d times", near.Closes())
	}
}

func TestEchoStreamNotAccepted(t *testing.T) {
	gone := api.Errorf(api.CodeUnavailable, "gone")
	_, err := builtin.Handlers()[api.ProtocolEcho].Serve(t.Context(), &router.Request{Kind: router.Stream,
		Accept: func() (router.Conn, error) { return nil, gone }})
	if err != gone {
		t.Errorf("got %v", err)
	}
}

func TestPing(t *testing.T) {
	most := `"` + strings.Repeat("p", 1022) + `"`
	for in, want := range map[string]string{
		"":                 `{}`,
		`{"n": 1}`:         `{"n": 1}`,
		`9007199254740993`: `9007199254740993`,
		most:               most,
		most + " ":         "",
	} {
		data, err := call(t, api.ProtocolPing, router.Call, in)
		if string(data) != want || (want == "") != (api.CodeOf(err) == api.CodeBadRequest) {
			t.Errorf("%d bytes: %s, %v", len(in), data, err)
		}
	}
}

// TestPingKeepsNothing: the payload is the transport's buffer.
func TestPingKeepsNothing(t *testing.T) {
	in := json.RawMessage(`{"n":1}`)
	out, err := builtin.Handlers()[api.ProtocolPing].Serve(t.Context(), &router.Request{Kind: router.Call, Payload: in})
	if err != nil {
		t.Fatal(err)
	}
	in[5] = '2'
	if string(out) != `{"n":1}` {
		t.Errorf("the answer changed with the question: %s", out)
	}
}

func TestWrongKinds(t *testing.T) {
	for _, c := range []struct {
		protocol string
		kind     router.Kind
	}{{api.ProtocolEcho, router.Message}, {api.ProtocolPing, router.Message}, {api.ProtocolPing, router.Stream}, {api.ProtocolEcho, 0}} {
		_, err := call(t, c.protocol, c.kind, `{"message":"x"}`)
		e := api.AsError(err)
		if e == nil || e.Code != api.CodeProtocolUnavailable || e.Message != c.protocol+" does not take a "+c.kind.String() {
			t.Errorf("%s as a %s: %v", c.protocol, c.kind, err)
		}
	}
}

// TestNoMoreThanPromised: a name here is granted to every contact by default.
func TestNoMoreThanPromised(t *testing.T) {
	if n := len(builtin.Handlers()); n != 2 {
		t.Errorf("%d built-in protocols", n)
	}
}
