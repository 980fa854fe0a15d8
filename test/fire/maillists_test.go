package fire

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
	"github.com/fastn-stack/fastnd/test/process"
)

// While a user lists a long inbox in as many requests as his budget allows, mail
// goes on, his own too, and each of the lists has its turn.
func TestMailBesideLists(t *testing.T) {
	x, _ := pair(t, process.Options{Stderr: quiet{}})
	for range testutil.Rounds(400, 1200) {
		if _, err := x.Client.Send(t.Context(), client.Message{Target: api.TargetSelf, Protocol: api.ProtocolText, Data: textData(strings.Repeat("x", 400))}); err != nil {
			t.Fatal(full(err))
		}
	}
	emptyOutbox(t, x, "")
	send := func() time.Duration {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		sent, err := x.Client.Send(ctx, client.Message{Target: "peer", Protocol: api.ProtocolText, Data: textData("x")})
		if err == nil {
			_, err = x.Client.WaitFinal(ctx, sent.MessageID)
		}
		if err != nil {
			t.Errorf("a message beside lists, after %v: %s", time.Since(start), full(err))
		}
		return time.Since(start)
	}
	alone := send()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var listed atomic.Int64
	begun := make(chan struct{})
	for range 10 {
		c := client.New(x.Socket, client.Options{Name: "lister"})
		defer c.Close()
		for range 95 { // 950 of 1,024 requests
			wg.Go(func() {
				for ctx.Err() == nil {
					var p api.InboxPage
					err := c.Verb(ctx, api.VerbInboxList, api.InboxListArgs{Limit: 1000}, &p)
					if err == nil && listed.Add(1) == 10 {
						close(begun)
					}
				}
			})
		}
	}
	select {
	case <-begun:
	case <-time.After(time.Minute):
		t.Fatal("no list is answered")
	}
	var worst time.Duration
	for range testutil.Rounds(4, 50) {
		worst = max(worst, send())
	}
	t.Logf("a message alone takes %v, beside lists %v at worst; %d lists were answered", alone, worst, listed.Load())
}
