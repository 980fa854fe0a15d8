package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/fastn-stack/fastnd/service/api"
)

func open() *Frame {
	return &Frame{Number: 7, Body: &Frame_Open{Open: &Open{
		From: []byte("delegation"), To: make([]byte, 32), Protocol: "Echo", Instance: "default",
		Kind: Kind_KIND_CALL, TimeoutMs: 1000, Trace: "t1"}}}
}

func encode(t testing.TB, f *Frame, payload []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if complete, err := WriteFrame(&b, f, payload); err != nil || !complete {
		t.Fatal(complete, err)
	}
	return b.Bytes()
}

// raw is a header as given, with the shortest length.
func raw(header []byte) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(header))), header...)
}

func read(b []byte) (*Frame, []byte, error) {
	return ReadFrame(bufio.NewReaderSize(bytes.NewReader(b), ReaderSize), nil, nil)
}

func TestFramesComeBack(t *testing.T) {
	key := make([]byte, 32)
	big := open()
	big.GetOpen().From = make([]byte, maxDelegation)
	for name, c := range map[string]struct {
		f       *Frame
		payload []byte
	}{
		"open":            {open(), []byte(`{"message":"hello"}`)},
		"open, no data":   {open(), nil},
		"open, big":       {big, make([]byte, 10)},
		"one write":       {open(), make([]byte, oneWrite-200)},
		"two writes":      {open(), make([]byte, oneWrite)},
		"chunk":           {open(), make([]byte, Chunk)},
		"chunk and more":  {open(), make([]byte, Chunk+1)},
		"largest payload": {open(), bytes.Repeat([]byte("x"), api.MaxPayload)},
		"reply":           {&Frame{Number: 1, Body: &Frame_Reply{Reply: ReplyError(api.Refusal())}}, nil},
		"whois":           {&Frame{Number: 1, Body: &Frame_Whois{Whois: &Whois{From: key, To: key}}}, nil},
		"redeem":          {&Frame{Number: 1, Body: &Frame_Redeem{Redeem: &Redeem{From: key, To: key, Secret: key}}}, nil},
		"cancel":          {&Frame{Number: 1, Body: &Frame_Cancel{Cancel: &Cancel{}}}, nil},
		"aborted":         {&Frame{Number: 1, Body: &Frame_Aborted{Aborted: &Aborted{Code: "aborted", Yours: true}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := encode(t, c.f, c.payload)
			both := bufio.NewReaderSize(bytes.NewReader(append(bytes.Clone(b), b...)), ReaderSize)
			for range 2 { // nothing of one frame is left for the next
				f, p, err := ReadFrame(both, nil, nil)
				if err != nil || !proto.Equal(f, c.f) || !bytes.Equal(p, c.payload) {
					t.Fatalf("got %v, %d bytes, %v", f, len(p), err)
				}
			}
			if _, _, err := ReadFrame(both, nil, nil); err != io.EOF {
				t.Fatalf("behind the last frame: %v", err)
			}
			for _, cut := range []int{1, 2, len(b) / 2, len(b) - 1} {
				if _, _, err := read(b[:cut]); err != io.ErrUnexpectedEOF {
					t.Fatalf("cut after %d of %d bytes: %v", cut, len(b), err)
				}
			}
		})
	}
}

func TestRefusedFrames(t *testing.T) {
	header := func(f *Frame) []byte {
		b, err := proto.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		return raw(b)
	}
	with := func(change func(*Open)) []byte {
		f := open()
		change(f.GetOpen())
		return header(f)
	}
	reply := func(r *Reply) []byte { return header(&Frame{Body: &Frame_Reply{Reply: r}}) }
	key := make([]byte, 32)
	one, _ := proto.Marshal(open())
	two, _ := proto.Marshal(&Frame{Body: &Frame_Cancel{Cancel: &Cancel{}}})
	deliver := func(size uint32, l ...*Letter) []byte {
		return header(&Frame{PayloadSize: size, Body: &Frame_Deliver{Deliver: &Deliver{From: key, To: key, Protocol: "x", Letters: l}}})
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"length not shortest":  {append([]byte{0x80 | byte(len(two)), 0}, two...), ErrMalformed},
		"zero not shortest":    {[]byte{0x80, 0x00}, ErrMalformed},
		"length of 10 bytes":   {[]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), ErrTooLarge},
		"header of 64 KiB + 1": {binary.AppendUvarint(nil, MaxHeader+1), ErrTooLarge},
		"no body":              {[]byte{0}, ErrMalformed},
		"two bodies":           {raw(append(bytes.Clone(one), two...)), ErrMalformed},
		"one body twice":       {raw(append(bytes.Clone(one), one...)), ErrMalformed},
		"unknown body":         {raw([]byte{15<<3 | 2, 0}), ErrMalformed},
		"not protobuf":         {raw([]byte{0xff}), ErrMalformed},
		"bad UTF-8":            {raw(bytes.Replace(one, []byte("Echo"), []byte("Ec\xffo"), 1)), ErrMalformed},
		"payload too large":    {header(&Frame{PayloadSize: api.MaxPayload + 1, Body: open().Body}), ErrTooLarge},
		"payload of a cancel":  {header(&Frame{PayloadSize: 1, Body: &Frame_Cancel{Cancel: &Cancel{}}}), ErrMalformed},
		"payload of an abort":  {header(&Frame{PayloadSize: 1, Body: &Frame_Aborted{Aborted: &Aborted{Code: "aborted"}}}), ErrMalformed},
		"abort without a code": {header(&Frame{Body: &Frame_Aborted{Aborted: &Aborted{}}}), ErrMalformed},
		"abort with odd code":  {header(&Frame{Body: &Frame_Aborted{Aborted: &Aborted{Code: "A"}}}), ErrMalformed},
		"payload of a whois":   {header(&Frame{PayloadSize: 1, Body: &Frame_Whois{Whois: &Whois{From: key, To: key}}}), ErrMalformed},
		"payload of a redeem":  {header(&Frame{PayloadSize: 1, Body: &Frame_Redeem{Redeem: &Redeem{From: key, To: key, Secret: key}}}), ErrMalformed},
		"short secret":         {header(&Frame{Body: &Frame_Redeem{Redeem: &Redeem{From: key, To: key, Secret: key[1:]}}}), ErrMalformed},
		"whois from nobody":    {header(&Frame{Body: &Frame_Whois{Whois: &Whois{To: key}}}), ErrMalformed},
		"no delegation":        {with(func(o *Open) { o.From = nil }), ErrMalformed},
		"huge delegation":      {with(func(o *Open) { o.From = make([]byte, maxDelegation+1) }), ErrMalformed},
		"short key":            {with(func(o *Open) { o.To = key[1:] }), ErrMalformed},
		"long key":             {with(func(o *Open) { o.To = append(key, 0) }), ErrMalformed},
		"no protocol":          {with(func(o *Open) { o.Protocol = "" }), ErrMalformed},
		"long protocol":        {with(func(o *Open) { o.Protocol = strings.Repeat("x", api.MaxProtocol+1) }), ErrMalformed},
		"long instance":        {with(func(o *Open) { o.Instance = strings.Repeat("x", api.MaxName+1) }), ErrMalformed},
		"long trace":           {with(func(o *Open) { o.Trace = strings.Repeat("x", maxTrace+1) }), ErrMalformed},
		"newline":              {with(func(o *Open) { o.Trace = "a\nb" }), ErrMalformed},
		"escape":               {with(func(o *Open) { o.Protocol = "\x1b[2J" }), ErrMalformed},
		"override":             {with(func(o *Open) { o.Instance = "a\u202eb" }), ErrMalformed},
		"no kind":              {with(func(o *Open) { o.Kind = 0 }), ErrMalformed},
		"unknown kind":         {with(func(o *Open) { o.Kind = 4 }), ErrMalformed},
		"code with a space":    {reply(&Reply{Code: "not found"}), ErrMalformed},
		"long code":            {reply(&Reply{Code: strings.Repeat("x", maxCode+1)}), ErrMalformed},
		"long message":         {reply(&Reply{Code: "x", Message: strings.Repeat("x", MaxMessage+1)}), ErrMalformed},
		"long hint":            {reply(&Reply{Code: "x", Hint: strings.Repeat("x", MaxHint+1)}), ErrMalformed},
		"long outcome":         {reply(&Reply{Outcomes: []*Outcome{{Message: strings.Repeat("x", MaxOutcome+1)}}}), ErrMalformed},
		"code of an outcome":   {reply(&Reply{Outcomes: []*Outcome{{Code: "A"}}}), ErrMalformed},
		"many outcomes":        {reply(&Reply{Outcomes: make([]*Outcome, MaxLetters+1)}), ErrMalformed},
		"no letter":            {deliver(0), ErrMalformed},
		"many letters":         {deliver(0, make([]*Letter, MaxLetters+1)...), ErrMalformed},
		"a letter without id":  {deliver(1, &Letter{Size: 1}), ErrMalformed},
		"letters too short":    {deliver(2, &Letter{Id: "a", Size: 1}), ErrMalformed},
		"letters too long":     {deliver(2, &Letter{Id: "a", Size: 1}, &Letter{Id: "b", Size: 2}), ErrMalformed},
		"letters overflow":     {deliver(2, &Letter{Id: "a", Size: math.MaxUint32}, &Letter{Id: "b", Size: 3}), ErrMalformed},
		"payload of available": {header(&Frame{PayloadSize: 1, Body: &Frame_Available{Available: &Available{From: key, To: key, Protocol: "x"}}}), ErrMalformed},
		"available to nobody":  {header(&Frame{Body: &Frame_Available{Available: &Available{From: key, Protocol: "x"}}}), ErrMalformed},
	} {
		if _, _, err := read(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// countWriter counts writes and fails after some.
type countWriter struct{ writes, left int }

func (w *countWriter) Write(p []byte) (int, error) {
	w.writes++
	if w.left < len(p) {
		return w.left, errors.New("broken")
	}
	w.left -= len(p)
	return len(p), nil
}

func TestWriteFrame(t *testing.T) {
	small := countWriter{left: 1 << 30}
	if complete, err := WriteFrame(&small, open(), make([]byte, 1000)); !complete || err != nil || small.writes != 1 {
		t.Errorf("a small frame: %d writes, %v", small.writes, err)
	}
	for _, payload := range [][]byte{nil, make([]byte, 100), make([]byte, 100_000)} {
		size := len(encode(t, open(), payload))
		for _, left := range []int{0, 1, size / 2, size - 1} {
			w := countWriter{left: left}
			if complete, err := WriteFrame(&w, open(), payload); complete || err == nil {
				t.Errorf("%d of %d bytes written is complete: %v, %v", left, size, complete, err)
			}
		}
	}
	large := open()
	large.GetOpen().From = make([]byte, MaxHeader)
	for name, c := range map[string]struct {
		f *Frame
		n int
	}{"header": {large, 0}, "payload": {open(), api.MaxPayload + 1}} {
		w := countWriter{left: 1 << 30}
		if _, err := WriteFrame(&w, c.f, make([]byte, c.n)); !errors.Is(err, ErrTooLarge) || w.writes != 0 {
			t.Errorf("a large %s: %v after %d writes", name, err, w.writes)
		}
	}
}

// A header that only announces a payload costs little memory.
func TestAnnouncedPayloadIsNotAllocated(t *testing.T) {
	f := open()
	f.PayloadSize = api.MaxPayload
	b, err := proto.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	per := testing.Benchmark(func(tb *testing.B) {
		for tb.Loop() {
			if _, _, err := read(raw(b)); err != io.ErrUnexpectedEOF {
				tb.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if per > 4*Chunk {
		t.Errorf("%d bytes for a header without its payload", per)
	}
}

// A payload that is not wanted is skipped without memory for it, up to the next
// frame; one that ends too soon is told.
func TestDiscardPayload(t *testing.T) {
	first := encode(t, open(), make([]byte, api.MaxPayload))
	r := bufio.NewReaderSize(bytes.NewReader(append(first, encode(t, open(), []byte("next"))...)), ReaderSize)
	parts := 0
	no := func(*Frame) bool { return false }
	if _, p, err := ReadFrame(r, no, func() { parts++ }); err != nil || p != nil || parts != api.MaxPayload/Chunk+1 {
		t.Fatalf("%d bytes, %d parts, %v", len(p), parts, err)
	}
	if _, p, err := ReadFrame(r, nil, nil); err != nil || string(p) != "next" {
		t.Fatalf("then %q, %v", p, err)
	}
	r.Reset(bytes.NewReader(first[:len(first)-1]))
	if _, _, err := ReadFrame(r, no, nil); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
}

// What a later version may add is not kept: it would count as nothing.
func TestUnknownFieldsAreDropped(t *testing.T) {
	b, err := proto.Marshal(open())
	if err != nil {
		t.Fatal(err)
	}
	b = protowire.AppendTag(b, 99, protowire.BytesType)
	b = protowire.AppendBytes(b, make([]byte, MaxHeader/2))
	f, _, err := read(raw(b))
	if err != nil || len(f.ProtoReflect().GetUnknown()) != 0 {
		t.Fatal(err, len(f.ProtoReflect().GetUnknown()))
	}
}

func TestReplies(t *testing.T) {
	if r := ReplyError(nil); r.Err() != nil || r.Code != "" {
		t.Errorf("the reply to no error is %v", r)
	}
	e := api.Errorf(api.CodeNotFound, "no such thing").WithHint("look elsewhere")
	got, ok := errors.AsType[*api.Error](ReplyError(e).Err())
	if !ok || *got != *e {
		t.Errorf("%+v came back as %+v", e, got)
	}
	if got := api.CodeOf(ReplyError(errors.New("disk on fire")).Err()); got != api.CodeInternal {
		t.Errorf("an error of another kind has the code %s", got)
	}
	long := ReplyError(api.Errorf(api.CodeInternal, "%s", strings.Repeat("ü", MaxMessage)).WithHint("%s", strings.Repeat("€", MaxHint)))
	if err := (&Frame{Body: &Frame_Reply{Reply: long}}).Validate(); err != nil {
		t.Errorf("a long error makes a bad reply: %v", err)
	}
	if !strings.HasSuffix(long.Message, "ü…") || len(long.Message) > MaxMessage {
		t.Errorf("the text was cut badly: %d bytes", len(long.Message))
	}
	evil := (&Reply{Code: "x", Message: "a\x1b[2Jb\nhint: c\xff", Hint: "\u202ed"}).Err()
	got, _ = errors.AsType[*api.Error](evil)
	if got.Message != "a [2Jb hint: c " || got.Hint != " d" {
		t.Errorf("a peer's text was passed on: %q, %q", got.Message, got.Hint)
	}
}

func FuzzReadFrame(f *testing.F) {
	key := make([]byte, 32)
	for _, frame := range []*Frame{
		open(),
		{Number: 1, Body: &Frame_Reply{Reply: ReplyError(api.Refusal())}},
		{Number: 1, Body: &Frame_Whois{Whois: &Whois{From: key, To: key}}},
		{Number: 1, Body: &Frame_Redeem{Redeem: &Redeem{From: key, To: key, Secret: key}}},
		{Number: 1, Body: &Frame_Cancel{Cancel: &Cancel{}}},
		{Number: 1, Body: &Frame_Aborted{Aborted: &Aborted{Code: "aborted", Yours: true}}},
	} {
		f.Add(encode(f, frame, nil))
	}
	f.Add(encode(f, open(), []byte(`{"message":"hello"}`)))
	f.Add([]byte{0x80, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, payload, err := read(b)
		if err != nil {
			if frame != nil || payload != nil {
				t.Fatal("an error and a frame")
			}
			return
		}
		if err := frame.Validate(); err != nil {
			t.Fatalf("read what is not valid: %v", err)
		}
		again, p, err := read(encode(t, frame, payload))
		if err != nil || !bytes.Equal(p, payload) || !proto.Equal(again, frame) {
			t.Fatalf("%v came back as %v, %v", frame, again, err)
		}
	})
}

func BenchmarkFrame(b *testing.B) {
	payload := []byte(`{"message":"hello"}`)
	var buf bytes.Buffer
	r := bufio.NewReaderSize(&buf, ReaderSize)
	f := open()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := WriteFrame(&buf, f, payload); err != nil {
			b.Fatal(err)
		}
		if _, _, err := ReadFrame(r, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}
