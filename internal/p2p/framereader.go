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
}

func newFrameReader(s network.Stream, limit time.Duration) *frameReader {
	f := &frameReader{s: s, limit: limit}
	f.br = readers.Get().(*bufio.Reader)
	f.br.Reset(f)
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

// next reads one frame. admit, if not nil, is asked before memory is given to
// a payload; the frame is returned even with an error once it was admitted.
func (f *frameReader) next(admit func(*wire.Frame) error) (*wire.Frame, []byte, error) {
	if err := f.wait(); err != nil {
		return nil, nil, err
	}
	f.inFrame = true
	defer f.rest()
	frame, err := wire.ReadHeader(f.br)
	if err != nil {
		return nil, nil, err
	}
	if admit != nil {
		if err := admit(frame); err != nil {
			return nil, nil, err
		}
	}
	payload, err := wire.ReadPayload(f.br, frame, api.MaxPayload, func() { f.armed = false })
	return frame, payload, err
}

// rest ends the frame and takes the deadline off.
func (f *frameReader) rest() {
	if f.dirty {
		_ = f.s.SetReadDeadline(time.Time{})
	}
	f.inFrame, f.armed, f.dirty = false, false, false
}
