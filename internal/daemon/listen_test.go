package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"testing"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// A program on bob's machine serves a protocol that bob granted to alice.
func TestLocalProgramServesAcross(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	verb[api.Grant](t, bob.c, api.VerbGrantAdd, api.GrantArgs{Who: "alice", Protocol: "sum/1"})
	aliceID := alice.own().ID52
	stop := serve(t, bob.c, "sum/1", func(ctx context.Context, in *client.Incoming) {
		if in.Contact != "alice" || in.From != aliceID || in.Protocol != "sum/1" || in.Instance != api.DefaultInstance {
			t.Errorf("the program was told of %+v", in.Incoming)
		}
		answer(ctx, in)
	})

	// Numbers that float64 cannot hold, and the spaces, pass as they are.
	data := json.RawMessage(`{"reply": [9007199254740993,  1e400]}`)
	got, err := alice.c.Call(limited(t), client.Request{Target: "bob", Protocol: "sum/1", Data: data})
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("call: %s, %s", got, full(err))
	}
	_, err = alice.c.Call(limited(t), to("bob", "sum/1", "fail"))
	e := wantCode(t, err, api.CodeConflict)
	if e.Message != "no sum today" || e.Hint != "tomorrow" {
		t.Errorf("the program's error came as %s", full(e))
	}
	near := openStream(t, alice, "bob", "sum/1")
	if _, err := near.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if err := near.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if back, err := io.ReadAll(near); err != nil || string(back) != "abc" {
		t.Errorf("stream: %q, %v", back, err)
	}
	wantClean(t, "near", near)
	if p := bob.own().Protocols; !contains(p, "sum/1") {
		t.Errorf("bob serves %q", p)
	}

	stop()
	_, err = alice.c.Call(limited(t), to("bob", "sum/1", nil))
	wantCode(t, err, api.CodeProtocolUnavailable)
	_, err = alice.c.Stream(limited(t), to("bob", "sum/1", nil))
	wantCode(t, err, api.CodeProtocolUnavailable)
	if p := bob.own().Protocols; contains(p, "sum/1") {
		t.Errorf("bob still serves %q", p)
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// answer gives calls their data back, or fails them, and echoes streams.
func answer(ctx context.Context, in *client.Incoming) {
	if in.Kind == "stream" {
		s, err := in.Accept(ctx)
		if err != nil {
			return
		}
		_, _ = io.Copy(s, s) // a failure shows at the other end
		_ = s.CloseWrite()
		_ = s.Close()
		return
	}
	if string(in.Data) == `"fail"` {
		_ = in.Fail(ctx, &api.Error{Code: api.CodeConflict, Message: "no sum today", Hint: "tomorrow"})
		return
	}
	_ = in.Reply(ctx, in.Data)
}

// Who is not granted the protocol does not reach the program.
func TestLocalProgramIsNotReachedWithoutGrant(t *testing.T) {
	testutil.LeakCheck(t)
	alice, bob := pair(t)
	serve(t, bob.c, "sum/1", func(_ context.Context, in *client.Incoming) {
		t.Errorf("the program was asked by %s", in.From)
	})
	_, err := alice.c.Call(limited(t), to("bob", "sum/1", nil))
	wantCode(t, err, api.CodeRefused)
	_, err = alice.c.Stream(limited(t), to("bob", "sum/1", nil))
	wantCode(t, err, api.CodeRefused)
}

// A program that ends with a call under way leaves the caller in doubt, and says so.
func TestProgramEndsWithCallUnderWay(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	l, err := d.c.Listen(limited(t), client.ListenOptions{Protocol: "slow"})
	if err != nil {
		t.Fatal(full(err))
	}
	asked := make(chan error, 1)
	go func() {
		_, err := d.c.Call(context.Background(), client.Request{Target: api.TargetSelf, Protocol: "slow", Timeout: patience})
		asked <- err
	}()
	if _, err := l.Next(limited(t)); err != nil {
		t.Fatal(full(err))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if code := api.CodeOf(receive(t, "the caller's answer", asked)); code != api.CodeOutcomeUnknown {
		t.Errorf("the caller was told %q, want outcome_unknown: the program may have done it", code)
	}
}

// A program whose identity is removed learns that it serves nobody any more.
func TestListenerOfRemovedIdentityEnds(t *testing.T) {
	testutil.LeakCheck(t)
	d := start(t, opts{})
	d.own()
	verb[api.Identity](t, d.c, api.VerbIdentityNew, api.NameArgs{Name: "work"})
	l, err := d.as("work").Listen(limited(t), client.ListenOptions{Protocol: "sum/1"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	kept, err := d.c.Listen(limited(t), client.ListenOptions{Protocol: "sum/1"})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	verb[struct{}](t, d.c, api.VerbIdentityRemove, api.IdentityArgs{Identity: "work"})
	_, err = l.Next(limited(t))
	wantCode(t, err, api.CodeUnavailable)
	if p := d.own().Protocols; !contains(p, "sum/1") {
		t.Errorf("the other identity's program was ended too: %q", p)
	}
}
