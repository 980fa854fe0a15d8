package p2p

import (
	"bufio"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/internal/wire"
	"github.com/fastn-stack/fastnd/service/api"
)

// frameReader reads frames from a stream. Between frames it waits for ever;
// within one it expects progress. Deadlines are set only when a frame does not
// arrive in one piece, which is rare.
type frameReader struct {
	s       network.Stream
	limit   time.Duration // for a header, and for each chunk of a payload
	br      *bufio.Reader
	inFrame bool
	armed   bool // a deadline is set for the part being read
	dirty   bool // a deadline was set since the frame began

	// admit, if not nil, is asked before memory is given to a payload.
	admit   func(*wire.Frame) *api.Error
	refused *api.Error // what it said of the frame being read
	// Made once, since each would cost an allocation for each frame.
	wanted   func(*wire.Frame) bool
	progress func()
}

func newFrameReader(s network.Stream, limit time.Duration) *frameReader {
	f := &frameReader{s: s, limit: limit}
	f.br = readers.Get().(*bufio.Reader)
	f.br.Reset(f)
	f.progress = func() { f.armed = false }
	f.wanted = func(frame *wire.Frame) bool {
		if f.admit != nil {
			f.refused = f.admit(frame)
		}
		return f.refused == nil
	}
	return f
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, wire.ReaderSize) }}

// release gives the buffer back; nothing may be read from f or its br again.
func (f *frameReader) release() {
	f.br.Reset(nil)
	readers.Put(f.br)
	f.br = nil
}

// Read is what br reads from.
func (f *frameReader) Read(p []byte) (int, error) {
	if f.inFrame && !f.armed {
		f.armed, f.dirty = true, true
		_ = f.s.SetReadDeadline(time.Now().Add(f.limit))
	}
	return f.s.Read(p)
}

// wait returns when a frame begins, or with the error that ends the stream.
func (f *frameReader) wait() error {
	_, err := f.br.Peek(1)
	return err
}

// next reads one frame. If admit refuses it, the payload is discarded, and the
// frame returned with the refusal: a stream that others share is read on.
func (f *frameReader) next() (_ *wire.Frame, payload []byte, refused *api.Error, err error) {
	if err := f.wait(); err != nil {
		return nil, nil, nil, err
	}
	f.inFrame, f.refused = true, nil
	defer f.rest()
	frame, payload, err := wire.ReadFrame(f.br, f.wanted, f.progress)
	return frame, payload, f.refused, err
}

// rest ends the frame and takes the deadline off.
func (f *frameReader) rest() {
	if f.dirty {
		_ = f.s.SetReadDeadline(time.Time{})
	}
	f.inFrame, f.armed, f.dirty = false, false, false
}
