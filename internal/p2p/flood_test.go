package p2p_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
)

const asFlood = "FASTN_TEST_FLOOD" // address to attack and name of the attack

// floods are what a stranger may fill its streams with.
func floods(t *testing.T) map[string][]byte {
	f := p2ptest.Open(wire.Kind_KIND_CALL)
	f.Number = 1
	mail := &wire.Frame{Number: 1, Body: &wire.Frame_Deliver{Deliver: &wire.Deliver{From: f.GetOpen().From, To: f.GetOpen().To,
		Protocol: "Text", Letters: []*wire.Letter{{Id: "1", Size: megabyte}}}}}
	return map[string][]byte{
		"unfinished-mail": append([]byte(prelude), frameBytes(t, mail, make([]byte, megabyte))[:megabyte]...),
		// All of a request but its last byte.
		"unfinished-requests": append([]byte(prelude), frameBytes(t, f, make([]byte, megabyte))[:megabyte]...),
		// A stream that is not negotiated, let alone opened.
		"no-protocol": append([]byte("\x13/multistream/1.0.0\n\xff\x07"), make([]byte, 1000)...),
		// A server that takes long, and data sent ahead.
		"eager-streams": append([]byte(prelude), append(frameBytes(t, p2ptest.Open(wire.Kind_KIND_STREAM), nil), make([]byte, megabyte)...)...),
	}
}

// runFlood is the stranger, a process of its own: over one connection it keeps
// 600 streams open and fills each as far as it is let.
func runFlood(t *testing.T, spec string) {
	addr, kind, _ := strings.Cut(spec, " ")
	to, err := peer.AddrInfoFromString(addr)
	if err != nil {
		t.Fatal(err)
	}
	listen := rawListen["tcp"]
	if strings.Contains(addr, "/quic-v1") {
		listen = rawListen["quic"]
	}
	raw := rawHost(t, listen)
	if err := raw.Connect(t.Context(), *to); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	garbage := floods(t)[kind]
	for range 600 {
		go func() {
			for ctx.Err() == nil {
				s, err := raw.Network().NewStream(ctx, to.ID)
				if err != nil {
					continue
				}
				end := context.AfterFunc(ctx, func() { _ = s.Reset() })
				_, _ = s.Write(garbage)
				_, _ = io.Copy(io.Discard, s)
				end()
				_ = s.Reset()
			}
		}()
	}
	fmt.Println("flooding")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// startFlood attacks h until the test ends.
func startFlood(t *testing.T, h *p2p.Host, kind string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestStrangersFillLittleMemory$")
	cmd.Env = append(os.Environ(), asFlood+"="+h.Addrs()[0]+" "+kind)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
}

// liveHeap is what is in use now, in bytes.
func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A stranger with one connection, that opens streams without end and fills all
// that it is given, costs little memory, and contacts are served meanwhile.
func TestStrangersFillLittleMemory(t *testing.T) {
	if spec := os.Getenv(asFlood); spec != "" {
		runFlood(t, spec)
		return
	}
	for kind := range floods(t) {
		t.Run(kind, func(t *testing.T) {
			overEach(t, func(t *testing.T, only p2ptest.Option, _ string) { underFlood(t, only, kind) })
		})
	}
}

func underFlood(t *testing.T, only p2ptest.Option, kind string) {
	var c circle
	slow := p2ptest.ServeFunc(func(ctx context.Context, p p2p.Peer, f *wire.Frame, payload []byte, accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
		if !c.has(p.Node) {
			<-ctx.Done()
		}
		return &wire.Reply{}, payload
	})
	h := p2ptest.New(t, slow, only, c.trusts)
	book := p2ptest.NewBook()
	book.Add(h.Node(), h.Addrs()...)
	friend := p2ptest.New(t, slow, only, func(o *p2p.Options) { o.Book = book })
	c.add(friend.Node())
	callNode(t, friend, h.Node())
	before := liveHeap()
	startFlood(t, h, kind)
	var most int64
	for range 10 {
		<-time.After(100 * time.Millisecond) // while the flood goes on
		most = max(most, liveHeap()-before)
		callNode(t, friend, h.Node())
	}
	t.Logf("the heap grew by %d KiB", most>>10)
	if most > 32<<20 {
		t.Errorf("the heap grew by %d MiB", most>>20)
	}
}
