// Package wire is what two nodes say to each other (DESIGN §6): the messages of
// wire.proto and their framing. A frame on the wire is
//
//	varint length | header (a Frame, protobuf, length bytes) | payload (payload_size bytes)
//
// with the length in its shortest form (the protobuf encoding specification,
// base 128 varints), a header of at most MaxHeader bytes and a payload of at
// most api.MaxPayload.
package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// MaxHeader bounds the protobuf part of a frame, in bytes.
	MaxHeader = 64 << 10
	// Chunk is how much of a payload is read at a time, and how much memory a
	// header alone can claim.
	Chunk = 64 << 10
	// oneWrite is the size up to which a frame is copied together and written
	// at once; a larger payload is written on its own, uncopied.
	oneWrite = 32 << 10
	// ReaderSize is a good buffer for ReadFrame: most headers fit, so that they
	// are parsed where they lie. Each connected node costs one.
	ReaderSize = 2 << 10
)

// Why a frame is refused; for use with errors.Is. After either, nothing more
// can be read from the stream.
var (
	ErrTooLarge  = errors.New("frame too large")
	ErrMalformed = errors.New("malformed frame")
)

// ReadFrame reads one frame with its payload, nil if there is none. It is
// io.EOF if the stream ends before a frame, io.ErrUnexpectedEOF within one;
// what it refuses wraps ErrTooLarge or ErrMalformed. Frames it returns are valid;
// with an error there is none.
//
// wanted, if not nil, is asked before memory is given to a payload: if it is
// false that is read and not kept. progress, if not nil, is called before each
// Chunk of the payload, to move a deadline on.
func ReadFrame(r *bufio.Reader, wanted func(*Frame) bool, progress func()) (*Frame, []byte, error) {
	f, err := readHeader(r)
	if err != nil {
		return nil, nil, err
	}
	if progress == nil {
		progress = func() {}
	}
	var payload []byte
	if wanted != nil && !wanted(f) {
		err = discardPayload(r, int(f.PayloadSize), progress)
	} else {
		payload, err = readPayload(r, int(f.PayloadSize), progress)
	}
	if err != nil {
		return nil, nil, err
	}
	return f, payload, nil
}

// readHeader reads the first part of a frame.
func readHeader(r *bufio.Reader) (*Frame, error) {
	n, err := readLength(r)
	if err != nil {
		return nil, err
	}
	f := new(Frame)
	if n <= r.Size() {
		b, err := r.Peek(n)
		if err != nil {
			return nil, unexpected(err)
		}
		if err := f.unmarshal(b); err != nil { // copies what it keeps
			return nil, err
		}
		_, _ = r.Discard(n) // cannot fail: they were peeked
	} else {
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, unexpected(err)
		}
		if err := f.unmarshal(b); err != nil {
			return nil, err
		}
	}
	return f, f.Validate()
}

func readPayload(r io.Reader, size int, progress func()) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	// All of the memory only once the peer has sent a part worth it.
	b := make([]byte, min(size, Chunk))
	for have := 0; ; {
		progress()
		end := min(have+Chunk, size)
		if _, err := io.ReadFull(r, b[have:end]); err != nil {
			return nil, unexpected(err)
		}
		if have = end; have == size {
			return b, nil
		}
		if len(b) < size {
			b = append(make([]byte, 0, size), b...)[:size]
		}
	}
}

func discardPayload(r *bufio.Reader, size int, progress func()) error {
	for size > 0 {
		progress()
		n, err := r.Discard(min(size, Chunk))
		if err != nil {
			return unexpected(err)
		}
		size -= n
	}
	return nil
}

// readLength reads a header's length in its shortest form.
func readLength(r *bufio.Reader) (int, error) {
	var n uint64
	for shift := 0; ; shift += 7 {
		c, err := r.ReadByte()
		if err != nil {
			if shift > 0 {
				err = unexpected(err)
			}
			return 0, err
		}
		n |= uint64(c&0x7f) << shift
		switch {
		case c >= 0x80 && shift >= 14: // three bytes hold more than MaxHeader
			return 0, fmt.Errorf("%w: a header of more than %d bytes", ErrTooLarge, MaxHeader)
		case c >= 0x80:
			continue
		case c == 0 && shift > 0:
			return 0, fmt.Errorf("%w: the length is not in its shortest form", ErrMalformed)
		case n > MaxHeader:
			return 0, fmt.Errorf("%w: a header of %d bytes, at most %d are allowed", ErrTooLarge, n, MaxHeader)
		}
		return int(n), nil
	}
}

// unmarshal counts the bodies itself: protobuf takes the last of several, or
// merges two of the same kind.
func (f *Frame) unmarshal(b []byte) error {
	bodies := 0
	for rest := b; len(rest) > 0; {
		num, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return fmt.Errorf("%w: not protobuf", ErrMalformed)
		}
		if num >= firstBody && num <= lastBody {
			bodies++
		}
		rest = rest[n:]
	}
	if bodies > 1 {
		return fmt.Errorf("%w: %d bodies", ErrMalformed, bodies)
	}
	// Fields that are not known here would be kept, up to MaxHeader of them.
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, f); err != nil {
		return fmt.Errorf("%w: not protobuf", ErrMalformed)
	}
	return nil
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// WriteFrame writes f and its payload, in one Write unless the payload is
// large. It sets f.PayloadSize. What it refuses (ErrTooLarge) it has not begun
// to write. complete tells whether the whole frame was handed to w: if not, the
// other side cannot have acted on it.
func WriteFrame(w io.Writer, f *Frame, payload []byte) (complete bool, err error) {
	if len(payload) > api.MaxPayload {
		return false, fmt.Errorf("%w: a payload of %d bytes, at most %d are allowed", ErrTooLarge, len(payload), api.MaxPayload)
	}
	f.PayloadSize = uint32(len(payload))
	size := proto.Size(f)
	if size > MaxHeader {
		return false, fmt.Errorf("%w: a header of %d bytes, at most %d are allowed", ErrTooLarge, size, MaxHeader)
	}
	p := buffers.Get().(*[]byte)
	defer buffers.Put(p)
	b := binary.AppendUvarint((*p)[:0], uint64(size))
	b, err = proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, f)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(b)+len(payload) <= oneWrite {
		b, payload = append(b, payload...), nil
	}
	*p = b
	n, err := w.Write(b)
	if err != nil || payload == nil {
		return n == len(b) && payload == nil, err
	}
	n, err = w.Write(payload)
	return n == len(payload), err
}

// unexpected says that a stream ended where it may not.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
