package fire

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/process"
)

// lies are the beginnings of streams that are no frames, or not whole ones.
func lies(t testing.TB, a *attacker, to identity.ID) map[string][]byte {
	call := bytesOf(t, a.open(wire.Kind_KIND_CALL, to, api.ProtocolEcho), []byte(`{"message":"x"}`))
	huge := a.open(wire.Kind_KIND_CALL, to, api.ProtocolEcho)
	huge.PayloadSize = 1 << 31
	header, err := proto.Marshal(huge)
	if err != nil {
		t.Fatal(err)
	}
	whole := a.open(wire.Kind_KIND_CALL, to, api.ProtocolEcho)
	return map[string][]byte{
		"nothing":             nil,
		"half a length":       {0x80},
		"half a header":       call[:len(call)/2],
		"half a payload":      call[:len(call)-3],
		"a megabyte missing":  bytesOf(t, whole, make([]byte, api.MaxPayload))[:4096],
		"length of 10 bytes":  []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
		"length not shortest": {0x80, 0x00},
		"an empty frame":      {0},
		"payload of 2 GiB":    append([]byte{byte(len(header)) | 0x80, byte(len(header) >> 7)}, header...),
		"not protobuf":        append([]byte{200, 1}, bytes.Repeat([]byte{0xff}, 200)...),
		"a frame too much":    append(bytes.Clone(call), 0),
		"number used twice":   append(bytes.Clone(call), call...),
		"an unasked reply":    bytesOf(t, &wire.Frame{Body: &wire.Frame_Reply{Reply: &wire.Reply{}}}, nil),
		"cancel of nothing":   bytesOf(t, &wire.Frame{Number: 9, Body: &wire.Frame_Cancel{Cancel: &wire.Cancel{}}}, nil),
		"abort of nothing":    bytesOf(t, &wire.Frame{Number: 9, Body: &wire.Frame_Aborted{Aborted: &wire.Aborted{Code: "x"}}}, nil),
		"another protocol":    []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
	}
}

// Lying and truncated frames, each of them left, ended and reset, from a stranger
// and from a contact's node, leave nothing behind and break nothing of others.
func TestPeersLyingFrames(t *testing.T) {
	over(t, func(t *testing.T, config []string, listen string) {
		x, y := victims(t, config...)
		to := idOf(t, y)
		stranger, friend := newAttacker(t, listen), newAttacker(t, listen)
		friend.befriend(y, "friend")
		unharmed(t, x, y, func(look func()) {
			for range testutil.Rounds(2, 50) {
				for who, a := range map[string]*attacker{"stranger": stranger, "friend": friend} {
					id := a.connect(y)
					for name, lie := range lies(t, a, to) {
						for _, end := range []func(network.Stream){
							func(s network.Stream) { _ = s.CloseWrite(); _ = s.Close() },
							func(s network.Stream) { _ = s.Reset() },
						} {
							s, err := a.tryStream(t.Context(), id)
							if err != nil {
								continue // a stranger has few
							}
							_, _ = s.Write(lie)
							end(s)
						}
						if t.Failed() {
							t.Fatalf("%s of a %s", name, who)
						}
					}
				}
				echo(t, x)
			}
			look()
			stranger.leave(y)
			friend.leave(y)
		})
	})
}

// Frames that come a byte at a time end with their time, while others on the
// same connection are served.
func TestPeersDribble(t *testing.T) {
	if !testutil.Torture() {
		t.Skip("takes the 10 seconds that a header may; internal/p2p has it with shorter ones")
	}
	over(t, func(t *testing.T, config []string, listen string) {
		x, y := victims(t, config...)
		to := idOf(t, y)
		friend := newAttacker(t, listen)
		friend.befriend(y, "friend")
		unharmed(t, x, y, func(look func()) {
			id := friend.connect(y)
			var all sync.WaitGroup
			for range 200 {
				all.Go(func() { dribble(t, friend, id, to) })
			}
			good := friend.stream(id)
			ended := make(chan struct{})
			go func() { all.Wait(); close(ended) }()
			for over := false; !over; {
				if reply, _ := good.ask(friend.open(wire.Kind_KIND_CALL, to, api.ProtocolEcho), []byte(`{"message":"x"}`)); reply.Code != "" {
					t.Fatal(reply)
				}
				select {
				case <-ended:
					over = true
				case <-time.After(100 * time.Millisecond):
				}
			}
			look()
			friend.leave(y)
		})
	})
}

// dribble sends a call a byte at a time until it is cut off, which must be.
func dribble(t *testing.T, a *attacker, to peer.ID, owner identity.ID) {
	s, err := a.tryStream(t.Context(), to)
	if err != nil {
		t.Error(err)
		return
	}
	call := bytesOf(t, a.open(wire.Kind_KIND_CALL, owner, api.ProtocolEcho), make([]byte, 1<<10))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cut := make(chan error, 1)
	go func() {
		_, err := s.in.ReadByte()
		cut <- err
	}()
	for i := 0; ; i++ {
		select {
		case err := <-cut:
			if se, ok := errors.AsType[*network.StreamError](err); !ok || !se.Remote {
				t.Errorf("a dribbled frame ended with %v", err)
			}
			return
		case <-ctx.Done():
			t.Error("a dribbled frame was not cut")
			return
		case <-time.After(200 * time.Millisecond):
			_, _ = s.Write(call[i%len(call) : i%len(call)+1])
		}
	}
}

// What internal/p2p and the budgets let one node hold of streams.
const (
	strangersStreams = 32   // that it opened, of whatever kind
	openingStreams   = 1024 // whose first frame is not whole
	acceptedStreams  = 64   // of one identity
	othersStreams    = 8    // that are not the attack's: identify's
)

// A node that opens 10,000 streams without pause, of each kind, is not followed:
// a stranger and one who is blocked get their few, a contact's node what it may have,
// and when it is gone all is as before.
func TestPeersOpen10000Streams(t *testing.T) {
	over(t, func(t *testing.T, config []string, listen string) {
		x, y := victims(t, config...)
		most := 10000
		if listen == tcpLoopback {
			most = 2500
		}
		most = testutil.Rounds(most, 10000)
		for who, c := range map[string]struct {
			code api.Code
			held int
		}{
			"stranger": {api.CodeRefused, strangersStreams + othersStreams},
			"blocked":  {api.CodeRefused, strangersStreams + othersStreams},
			// Those that say nothing at all are libp2p's, for 10 s; it lets a node have 10,000.
			"friend": {"", most/4 + min(most/4, openingStreams) + acceptedStreams + othersStreams},
		} {
			t.Run(who, func(t *testing.T) {
				a := newAttacker(t, listen)
				if who != "stranger" {
					a.befriend(y, who)
				}
				if who == "blocked" {
					block(t, y, who)
					a.leave(y)
				}
				unharmed(t, x, y, func(look func()) {
					o := opener{attacker: a, x: x, y: y}
					o.open(t, most, c.held, c.code)
					look()
					t.Logf("%d streams were opened, of which %d were there at once, and %d stayed", o.opened, o.peak, o.held)
					if o.opened == 0 {
						t.Error("no stream was opened")
					}
					if o.held > c.held {
						t.Errorf("%d streams of a %s stayed, want at most %d", o.held, who, c.held)
					}
					atOnce := c.held
					if c.code == "" {
						atOnce *= 2 // with those that are about to be refused, or have ended just now
					}
					if o.peak > atOnce {
						t.Errorf("%d streams of a %s were there at once, want at most %d", o.peak, who, atOnce)
					}
					if c.code == "" && o.held == 0 {
						t.Error("the friend is not connected at the end")
					}
					for range 20 {
						echo(t, x)
					}
					a.leave(y)
				})
			})
		}
	})
}

// opener opens streams to y, of which x is a contact.
type opener struct {
	*attacker
	x, y   *process.Daemon
	opened int
	peak   int // the most that there were at once
	// held is how many there were once those had gone that are refused, or had ended.
	held int
}

// open opens streams without pause: a quarter says nothing, a quarter half of what it
// would, the rest is whole. The first of these is answered with code. Of all no more
// than stay are to stay.
func (o *opener) open(t *testing.T, most, stay int, code api.Code) {
	t.Helper()
	id := o.connect(o.y)
	f := o.attacker.open(wire.Kind_KIND_STREAM, idOf(t, o.y), api.ProtocolEcho)
	s := o.stream(id)
	if reply, _ := s.ask(f, nil); api.Code(reply.Code) != code {
		t.Fatalf("a stream is answered %v, want %q", reply, code)
	}
	s.close()
	whole, began := bytesOf(t, f, nil), time.Now()
	for i := range most {
		s, err := o.tryStream(t.Context(), id)
		if err != nil {
			if o.host.Network().Connectedness(id) != network.Connected {
				id = o.connect(o.y)
			}
			continue
		}
		o.opened++
		switch i % 4 {
		case 0: // nothing is sent: also not the protocol's name
		case 1:
			_, _ = s.Write(whole[:len(whole)/2])
		default:
			_, _ = s.Write(whole)
		}
		if i%500 == 499 {
			echo(t, o.x)
			o.peak = max(o.peak, streamsOf(t, o.y, o.node.ID()))
		}
	}
	// How long the others take to go is the machine's; those that are not whole have 10 s.
	if took := time.Since(began); took > 5*time.Second {
		t.Logf("it took %v: this tells little of those that are not whole", took)
	}
	for end := began.Add(9 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		o.held = streamsOf(t, o.y, o.node.ID())
		o.peak = max(o.peak, o.held)
		if o.held <= stay || time.Now().After(end) {
			return
		}
	}
}

// streamsOf is how many streams there are with a node.
func streamsOf(t testing.TB, d *process.Daemon, node identity.ID) int {
	t.Helper()
	for _, p := range status(t, d).Peers {
		if p.Node == node.String() {
			return p.Streams
		}
	}
	return 0
}
