package p2p_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

var rawListen = map[string]string{"quic": "/ip4/127.0.0.1/udp/0/quic-v1", "tcp": "/ip4/127.0.0.1/tcp/0"}

// Callers whose time runs out while their request is being written leave in
// time, and the stream that they share with others stays whole.
func TestShortDeadlinesBreakNobodyElsesRequests(t *testing.T) {
	for name, listen := range rawListen {
		t.Run(name, func(t *testing.T) {
			testutil.LeakCheck(t)
			book := p2ptest.NewBook()
			a := p2ptest.New(t, p2ptest.ServeFunc(p2ptest.Echo), func(o *p2p.Options) { o.Book = book })
			raw := rawHost(t, listen)
			first, goOn := make(chan bool, 1), make(chan bool)
			var seen sync.Map // the numbers of the short calls that arrived
			raw.SetStreamHandler(p2p.Protocol, func(s network.Stream) { answerLater(s, first, goOn, &seen) })
			node := rawID(t, raw)
			book.Add(node, fmt.Sprint(raw.Addrs()[0]))

			long := make(chan error, 1)
			go func() {
				r, _, err := a.Request(timeout(t, 40*time.Second), node, p2ptest.Open(wire.Kind_KIND_CALL), []byte("long"))
				if err == nil {
					err = r.Err()
				}
				long <- err
			}()
			recv(t, first, "long call")
			// The peer does not read: these fill the stream and then some.
			var calls sync.WaitGroup
			var unsent sync.Map
			for i := range 4 {
				calls.Go(func() {
					for j := range 30 {
						number := byte(30*i + j)
						began := time.Now()
						ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
						_, _, err := a.Request(ctx, node, p2ptest.Open(wire.Kind_KIND_CALL), bytes.Repeat([]byte{number}, 30<<10))
						cancel()
						if api.CodeOf(err) != api.CodeTimeout {
							t.Errorf("a call that ran out of time: %v", err)
						}
						if strings.Contains(err.Error(), "could not be sent") {
							unsent.Store(number, true)
						}
						if d := time.Since(began); d > time.Second {
							t.Errorf("a call of 50 ms took %v", d)
						}
					}
				})
			}
			calls.Wait()
			close(goOn)
			if err := recv(t, long, "answer to the long call"); err != nil {
				t.Errorf("the long call: %v", err)
			}
			callNode(t, a, node)
			some := false
			for number := range unsent.Range {
				some = true
				if _, ok := seen.Load(number); ok {
					t.Errorf("call %d was sent, though the caller was told that it was not", number)
				}
			}
			if !some {
				t.Error("the peer's windows held all that was sent to it")
			}
			if n := a.Connections(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// answerLater reads one request, tells so, and answers it and all others only
// from when goOn is closed.
func answerLater(s network.Stream, first chan<- bool, goOn <-chan bool, seen *sync.Map) {
	defer s.Reset()
	in := bufio.NewReader(s)
	for {
		f, p, err := wire.ReadFrame(in, nil, nil)
		if err != nil {
			return
		}
		if len(p) == 30<<10 {
			seen.Store(p[0], true)
		}
		if string(p) == "long" {
			first <- true
			<-goOn
		}
		if f.GetCancel() != nil {
			continue
		}
		if _, err := wire.WriteFrame(s, &wire.Frame{Number: f.Number, Body: &wire.Frame_Reply{Reply: &wire.Reply{}}}, p); err != nil {
			return
		}
	}
}
