package fire

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// transports are the configurations that leave one transport.
var transports = map[string][]string{"quic": {"tcp = false"}, "tcp": {"quic = false"}}

// A program whose peer ended its direction, and aborts then, is told at once
// though it neither reads nor writes: also the one that waits for answers.
func TestAbortAfterTheEndReachesASilentProgram(t *testing.T) {
	for name, config := range transports {
		t.Run(name, func(t *testing.T) {
			x, y := pair(t, process.Options{Config: config})
			served := listen(t, y, "Silent")
			grant(t, y, "peer", "Silent")
			for _, farAborts := range []bool{false, true} {
				near := openStream(t, x, "Silent")
				from, to := near, <-served
				if farAborts {
					from, to = to, from
				}
				if err := from.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(to); err != nil {
					t.Fatalf("a clean end reads as %v", err)
				}
				if err := from.Reset(t.Context()); err != nil {
					t.Fatal(err)
				}
				// Without word of it this takes until somebody writes.
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if r, err := to.Result(ctx); err != nil || r.Clean || r.Code != api.CodeAborted {
					t.Errorf("the far program learns %+v, %v", r, err)
				}
				_, _ = near.Close(), to.Close()
			}
		})
	}
}

// listen serves a protocol of d's first identity: each stream is accepted and
// handed to the test.
func listen(t *testing.T, d *process.Daemon, protocol string) <-chan *client.Stream {
	t.Helper()
	l, err := d.Client.Listen(t.Context(), client.ListenOptions{Protocol: protocol})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan *client.Stream, 1024)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = l.Serve(context.WithoutCancel(t.Context()), func(ctx context.Context, in *client.Incoming) {
			if s, err := in.Accept(ctx); err == nil {
				served <- s
			}
		})
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return served
}

func grant(t *testing.T, d *process.Daemon, who, protocol string) {
	t.Helper()
	if err := d.Client.Verb(t.Context(), api.VerbGrantAdd, api.GrantArgs{Who: who, Protocol: protocol}, nil); err != nil {
		t.Fatal(err)
	}
}

func openStream(t *testing.T, d *process.Daemon, protocol string) *client.Stream {
	t.Helper()
	s, err := d.Client.Stream(t.Context(), client.Request{Target: "peer", Protocol: protocol})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
