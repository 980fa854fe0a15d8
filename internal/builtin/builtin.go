// Package builtin holds the protocols that every node serves itself.
package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// echoMost bounds a message to Echo, in characters.
const echoMost = 1000

// Handlers returns the built-in protocols by name.
func Handlers() map[string]router.Handler {
	return map[string]router.Handler{
		api.ProtocolEcho: router.HandlerFunc(echo),
		api.ProtocolPing: router.HandlerFunc(ping),
	}
}

// echo answers a call {"message":M} with {"echoed":"Echo: M"}, and returns the
// bytes of a stream.
func echo(_ context.Context, r *router.Request) (json.RawMessage, error) {
	switch r.Kind {
	case router.Call:
		return echoCall(r.Payload)
	case router.Stream:
		return nil, echoStream(r)
	}
	return nil, unserved(r)
}

func echoCall(payload json.RawMessage) (json.RawMessage, error) {
	const shape = `Echo takes {"message":"…"}`
	message, ok := messageOf(payload)
	if !ok {
		return nil, api.Errorf(api.CodeBadRequest, shape)
	}
	if message == "" {
		return nil, api.Errorf(api.CodeBadRequest, "the message is empty; "+shape)
	}
	if n := utf8.RuneCountInString(message); n > echoMost {
		return nil, api.Errorf(api.CodeBadRequest, "the message has %d characters, the limit is %d", n, echoMost)
	}
	out := append(make([]byte, 0, len(payload)+16), `{"echoed":`...)
	out = api.AppendString(out, "Echo: "+message)
	return append(out, '}'), nil
}

// messageOf reads the text in {"message":"…"}, which is valid JSON; other members
// are ignored.
func messageOf(payload []byte) (message string, ok bool) {
	if rest, ok := bytes.CutPrefix(payload, []byte(`{"message":"`)); ok { // as most are
		text, end, _ := bytes.Cut(rest, []byte{'"'})
		if string(end) == "}" && bytes.IndexByte(text, '\\') < 0 {
			return string(text), true
		}
	}
	// A map, since a struct takes members in any case of letters.
	var in map[string]json.RawMessage
	var text *string
	if json.Unmarshal(payload, &in) != nil || json.Unmarshal(in["message"], &text) != nil || text == nil {
		return "", false
	}
	return *text, true
}

func echoStream(r *router.Request) error {
	c, err := r.Accept()
	if err != nil {
		return err
	}
	buf, release := router.Buffer()
	defer release()
	// Plain Read and Write: io.Copy's shortcuts know nothing of Reset.
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, buf); err != nil {
		c.Reset(api.CodeAborted)
		_ = c.Close()
		return err
	}
	return errors.Join(c.CloseWrite(), c.Close())
}

// ping answers a call with its own data: whoever measures compares.
func ping(_ context.Context, r *router.Request) (json.RawMessage, error) {
	if r.Kind != router.Call {
		return nil, unserved(r)
	}
	const most = 1 << 10
	if len(r.Payload) > most {
		return nil, api.Errorf(api.CodeBadRequest, "Ping takes at most %d bytes", most)
	}
	if len(r.Payload) == 0 {
		return json.RawMessage(`{}`), nil
	}
	return bytes.Clone(r.Payload), nil
}

func unserved(r *router.Request) error {
	return api.Errorf(api.CodeProtocolUnavailable, "%s does not take a %s", r.Protocol, r.Kind)
}
