package p2p

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// How a peer ends the stream that it opened, in FuzzServeStream.
const (
	endClean   = iota // its own direction
	endReset          // both
	endLost           // with the whole connection
	endings           // their number
	asStranger = 0x80 // or-ed to them: the peer is no contact
)

// FuzzServeStream is a peer that opens a stream and sends data in pieces: what
// the host answers, when it gives the stream up, and that nothing is left.
func FuzzServeStream(f *testing.F) {
	for _, data := range servedSeeds(f) {
		f.Add(data, byte(255), byte(endClean))
		f.Add(data, byte(0), byte(endClean))
		f.Add(data, byte(20), byte(endReset))
		f.Add(data, byte(20), byte(endLost|asStranger))
	}
	f.Fuzz(func(t *testing.T, data []byte, piece, end byte) {
		before := runtime.NumGoroutine()
		s := newServed(t, end&asStranger != 0)
		s.play(t, data, int(piece)+1, int(end&^asStranger)%endings)
		s.checkAnswers(t, data, int(end&^asStranger)%endings == endClean)
		s.checkNothingHeld(t)
		for limit := time.Now().Add(4 * time.Second); runtime.NumGoroutine() > before; time.Sleep(100 * time.Microsecond) {
			if time.Now().After(limit) {
				t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
			}
		}
	})
}

// frameSeed is a frame as a peer may send it. Its protocol tells the fuzz server
// what to do.
func frameSeed(f *testing.F, number uint64, body any, payload string) []byte {
	frame := &wire.Frame{Number: number}
	from, to := []byte("delegation"), make([]byte, 32)
	switch b := body.(type) {
	case string:
		frame.Body = &wire.Frame_Open{Open: &wire.Open{From: from, To: to, Protocol: b, Kind: wire.Kind_KIND_CALL}}
	case *wire.Open:
		b.From, b.To = from, to
		frame.Body = &wire.Frame_Open{Open: b}
	case *wire.Whois:
		b.From, b.To = from, to
		frame.Body = &wire.Frame_Whois{Whois: b}
	case *wire.Redeem:
		b.From, b.To, b.Secret = from, to, to
		frame.Body = &wire.Frame_Redeem{Redeem: b}
	case *wire.Cancel:
		frame.Body = &wire.Frame_Cancel{Cancel: b}
	case *wire.Deliver:
		b.From, b.To, b.Protocol, b.Letters = from, to, "Text", []*wire.Letter{{Id: "123e4567-e89b-42d3-a456-426614174000", CreatedUs: 1, Size: uint32(len(payload))}}
		frame.Body = &wire.Frame_Deliver{Deliver: b}
	case *wire.Available:
		b.From, b.To, b.Protocol = from, to, "Text"
		frame.Body = &wire.Frame_Available{Available: b}
	case *wire.Aborted:
		frame.Body = &wire.Frame_Aborted{Aborted: b}
	case *wire.Reply:
		frame.Body = &wire.Frame_Reply{Reply: b}
	}
	var out bytes.Buffer
	if _, err := wire.WriteFrame(&out, frame, []byte(payload)); err != nil {
		f.Fatal(err)
	}
	return out.Bytes()
}

func servedSeeds(f *testing.F) [][]byte {
	frame := func(number uint64, body any, payload string) []byte { return frameSeed(f, number, body, payload) }
	stream := func(protocol string) *wire.Open { return &wire.Open{Protocol: protocol, Kind: wire.Kind_KIND_STREAM} }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	call := frame(1, "Echo", `{"message":"hello"}`)
	big := frame(2, "Echo", string(bytes.Repeat([]byte("x"), bulky+1)))
	return [][]byte{
		{}, {0}, {0x80, 0}, call, call[:len(call)-3],
		join(call, frame(2, "Deny", ""), frame(3, &wire.Whois{}, ""), frame(4, &wire.Redeem{}, ""), frame(5, "Nil", "x")),
		join(call, big, frame(3, "Big", "")),
		join(frame(1, "Wait", ""), frame(1, &wire.Cancel{}, ""), frame(9, &wire.Cancel{}, "")),
		join(frame(1, "Wait", ""), frame(1, "Wait", "")),
		join(frame(1, &wire.Open{Protocol: "Wait", Kind: wire.Kind_KIND_CALL, TimeoutMs: 1}, ""), call),
		join(slices.Repeat([][]byte{frame(1, "Wait", "p"), frame(2, "Wait", ""), frame(3, "Wait", ""), frame(4, "Wait", "")}, 1)...),
		join(call, frame(2, &wire.Reply{}, "")), frame(1, &wire.Reply{}, ""), frame(1, &wire.Cancel{}, ""),
		join(call, frame(2, &wire.Deliver{}, `"a letter"`), frame(3, &wire.Available{}, "")), frame(1, &wire.Deliver{}, `""`),
		frame(7, &wire.Aborted{Code: "aborted", Yours: true}, ""), join(call, frame(7, &wire.Aborted{Code: "aborted"}, "")),
		join(call, frame(2, stream("Echo"), "")), join(call, []byte{0xff, 0xff, 0xff}),
		join(frame(7, stream("Echo"), "p"), []byte("raw bytes")), frame(7, stream("Deny"), ""), frame(7, stream("Twice"), ""), frame(7, stream("Nil"), ""),
		join(frame(7, stream("Wait"), ""), []byte("early")),
	}
}

// served is one stream at a host without a network.
type served struct {
	h      *Host
	s      *memStream
	peer   *memPeer
	finish chan struct{} // closed when the fuzz server is to wait no more
	got    []byte        // what the peer read
	second error         // of an accept too many
}

// smallCap is how many requests of a connection are served at once here.
const smallCap = 3

func newServed(t *testing.T, stranger bool) *served {
	key, err := identity.KeyFromSeed(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	o, err := Options{Key: key, TCP: true, Trusted: func(identity.ID) bool { return !stranger }, Timing: Timing{RequestCap: smallCap}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	sv := &served{finish: make(chan struct{}), second: errStopping}
	h := &Host{o: o, server: sv, node: key.ID()}
	h.told.Store(&told{})
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.conns.init(h)
	h.nodes.init(h)
	h.strangers.init(o)
	sv.h = h
	sv.s, sv.peer = newMemStream(t, key.ID().PeerID())
	return sv
}

// ServeFrame does what the protocol's name says.
func (sv *served) ServeFrame(ctx context.Context, _ Peer, f *wire.Frame, payload []byte, accept func(*wire.Reply) (router.Conn, error)) (*wire.Reply, []byte) {
	o := f.GetOpen()
	switch {
	case o == nil:
		return &wire.Reply{}, nil
	case o.Protocol == "Deny":
		return wire.ReplyError(api.Refusal()), nil
	case o.Protocol == "Big":
		return &wire.Reply{}, make([]byte, bulky+1)
	case o.Protocol == "Wait":
		select {
		case <-ctx.Done():
		case <-sv.finish:
		}
		return wire.ReplyError(api.Errorf(api.CodeCancelled, "waited")), nil
	case o.Protocol != "Echo" && o.Protocol != "Twice":
		return nil, nil
	case o.Kind != wire.Kind_KIND_STREAM:
		return &wire.Reply{}, payload
	}
	conn, err := accept(&wire.Reply{})
	if err != nil {
		return wire.ReplyError(err), nil
	}
	if o.Protocol == "Twice" {
		_, sv.second = accept(&wire.Reply{})
	}
	defer conn.Close()
	if _, err := io.Copy(conn, conn); err == nil {
		_ = conn.CloseWrite()
	}
	return nil, nil
}

// play sends data in pieces, ends, and returns when the host is done.
func (sv *served) play(t *testing.T, data []byte, piece, end int) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		sv.h.serveStream(sv.s)
	}()
	read := make(chan struct{})
	go func() {
		defer close(read)
		sv.got, _ = io.ReadAll(sv.peer.conn) // a reset is seen in s.code
	}()
	// Many pieces cost time and show little.
	piece = max(piece, len(data)/200)
	for c := range slices.Chunk(data, piece) {
		if _, err := sv.peer.conn.Write(c); err != nil {
			break // it was given up
		}
	}
	switch end {
	case endClean:
		_ = sv.peer.conn.CloseWrite()
	case endReset:
		sv.peer.reset()
	case endLost:
		for _, c := range sv.h.conns.list() {
			c.end()
		}
		sv.peer.reset()
	}
	close(sv.finish)
	select {
	case <-over:
	case <-time.After(4 * time.Second):
		t.Fatal("the stream is still served")
	}
	sv.s.close()
	<-read
	sv.peer.conn.Close()
}

// checkNothingHeld is for when the stream is over and its connection is not.
func (sv *served) checkNothingHeld(t *testing.T) {
	t.Helper()
	if sv.second == nil {
		t.Error("a stream is accepted twice")
	}
	for _, c := range sv.h.conns.list() {
		b := &c.budget
		if b.requests != 0 || b.bytes != 0 || b.capped != 0 || len(b.senders) != 0 || len(c.requests.open) != 0 || c.opening.n != 0 || c.serving.Load() != 0 || c.raw.count() != 0 {
			t.Errorf("held: %+v, %d streams of requests, %d opening, %d served, %d raw", b, len(c.requests.open), c.opening.n, c.serving.Load(), c.raw.count())
		}
		c.end()
	}
	if n := sv.h.strangers.payloads; n != 0 {
		t.Errorf("strangers hold %d bytes", n)
	}
	if n := sv.s.scope.held.Load(); n != 0 {
		t.Errorf("%d bytes are reserved at the resource manager", n)
	}
	sv.h.cancel()
	sv.h.crew.Close()
	sv.h.tasks.close()
	sv.h.tasks.wg.Wait()
}

// sentFrame is a frame of data, with what stands behind it.
type sentFrame struct {
	*wire.Frame
	payload, rest []byte
}

func framesOf(data []byte) (frames []sentFrame, err error) {
	in := bytes.NewReader(data)
	r := bufio.NewReader(in)
	for {
		f, payload, err := wire.ReadFrame(r, nil, nil)
		if err != nil {
			return frames, err
		}
		frames = append(frames, sentFrame{f, payload, data[len(data)-in.Len()-r.Buffered():]})
	}
}

func (sv *served) checkAnswers(t *testing.T, data []byte, clean bool) {
	t.Helper()
	asked, broken := framesOf(data)
	switch {
	case len(asked) == 0 || asked[0].GetReply() != nil:
		if len(sv.got) > 0 || sv.s.code.Load() == 0 {
			t.Errorf("no request, answered with %q, reset %#x", sv.got, sv.s.code.Load())
		}
	case asked[0].GetAborted() != nil:
		if len(sv.got) > 0 {
			t.Errorf("the word of an abort is answered with %q", sv.got)
		}
	case asked[0].GetOpen().GetKind() == wire.Kind_KIND_STREAM:
		sv.checkRaw(t, asked[0], clean)
	default:
		sv.checkReplies(t, asked, broken, clean)
	}
}

func (sv *served) checkRaw(t *testing.T, open sentFrame, clean bool) {
	t.Helper()
	got, _ := framesOf(sv.got)
	if len(got) == 0 {
		if clean {
			t.Error("a stream was not answered")
		}
		return
	}
	if got[0].GetReply() == nil || got[0].Number != open.Number {
		t.Fatalf("answered with %v", got[0])
	}
	var want []byte
	if p := open.GetOpen().Protocol; got[0].GetReply().Code == "" && (p == "Echo" || p == "Twice") {
		want = open.rest
	}
	if raw := got[0].rest; !bytes.HasPrefix(want, raw) || clean && len(raw) != len(want) {
		t.Errorf("%q was answered with %q", want, raw)
	}
}

func (sv *served) checkReplies(t *testing.T, asked []sentFrame, broken error, clean bool) {
	t.Helper()
	open := make(map[uint64][]sentFrame) // not answered
	violated := broken != io.EOF
	for i, f := range asked {
		if f.GetReply() != nil || f.GetAborted() != nil || f.GetOpen().GetKind() == wire.Kind_KIND_STREAM {
			violated = true
			asked = asked[:i]
			break
		}
	}
	twice := false
	for _, f := range asked {
		if f.GetCancel() == nil {
			twice = twice || len(open[f.Number]) > 0
			open[f.Number] = append(open[f.Number], f)
		}
	}
	got, rest := framesOf(sv.got)
	for _, a := range got {
		r := a.GetReply()
		i := slices.IndexFunc(open[a.Number], func(q sentFrame) bool {
			p := q.GetOpen().GetProtocol()
			return r.GetCode() != "" || p == "Big" || p == "Echo" && bytes.Equal(q.payload, a.payload) || p != "Echo" && len(a.payload) == 0
		})
		if r == nil || r.Code == string(api.CodeInternal) || i < 0 {
			t.Fatalf("%v answers nothing that was asked", a)
		}
		open[a.Number] = slices.Delete(open[a.Number], i, i+1)
	}
	if !clean {
		return
	}
	code := sv.s.code.Load()
	if violated && code == 0 || code != 0 && !violated && !twice {
		t.Errorf("reset with %#x; %v", code, broken)
	}
	if code != 0 {
		return
	}
	if rest != io.EOF {
		t.Errorf("the answers end in %v", rest)
	}
	for number, left := range open {
		if len(left) > 0 {
			t.Errorf("%d requests with number %d have no answer", len(left), number)
		}
	}
}
