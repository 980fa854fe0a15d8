package ipc

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// idleBuffer is what a connection that waits holds for reading: most requests
	// fit, and ten thousand idle clients cost little.
	idleBuffer = 2 << 10
	// oobSize has room for one descriptor more than a request may carry.
	oobSize = 16 + (api.MaxFiles+1)*4 + 4
)

var errLineTooLong = errors.New("line too long")

// lineReader cuts what a client sends into lines, and keeps the descriptors
// that came with the bytes of each. One goroutine uses it.
type lineReader struct {
	conn *net.UnixConn
	// arrived is called for each read that brought bytes, before they are looked at.
	arrived func()

	buf        []byte
	start, end int   // bytes not yet returned
	scanned    int   // bytes before it hold no newline
	base       int64 // offset of buf[0] in all that was ever read
	eof        bool
	oob        [oobSize]byte
	batches    []batch
}

// batch are descriptors that came in one read. They belong to the line that
// holds the last byte of that read: the kernel ends a read behind the message
// that carried them, but lets it begin with earlier ones.
type batch struct {
	last  int64 // offset of that byte
	files attached
}

// attached are the descriptors of one line.
type attached struct {
	files []*os.File
	over  bool // there were more than api.MaxFiles, or than the daemon can take; none is kept
}

func (a *attached) close() {
	for _, f := range a.files {
		f.Close()
	}
	a.files = nil
}

func (a *attached) add(b attached) {
	a.files = append(a.files, b.files...)
	a.over = a.over || b.over || len(a.files) > api.MaxFiles
	if a.over {
		a.close()
	}
}

// buffered tells how many bytes were read behind the last line.
func (r *lineReader) buffered() int { return r.end - r.start }

// next returns the next line without its newline, valid until the next call,
// and its descriptors, which the caller closes. io.EOF comes at the end of what
// the client sends, errLineTooLong once for a line of more than api.MaxLine
// bytes; other errors are those of reading, and next may be called again after
// a deadline. A last line without a newline is no line.
func (r *lineReader) next() ([]byte, attached, error) {
	for {
		if i := bytes.IndexByte(r.buf[r.scanned:r.end], '\n'); i >= 0 {
			nl := r.scanned + i
			line := r.buf[r.start:nl]
			files := r.filesUntil(r.base + int64(nl))
			r.start, r.scanned = nl+1, nl+1
			if len(line) >= api.MaxLine {
				files.close()
				return nil, attached{}, errLineTooLong
			}
			return line, files, nil
		}
		r.scanned = r.end
		if r.end-r.start >= api.MaxLine {
			return nil, attached{}, errLineTooLong
		}
		if r.eof {
			return nil, attached{}, io.EOF
		}
		r.makeRoom()
		if err := r.fill(); err != nil {
			return nil, attached{}, err
		}
	}
}

// own makes line, the one that next returned last, the caller's own. A large one
// is given away with its buffer, which also keeps idle connections small.
func (r *lineReader) own(part []byte) []byte {
	if len(part) < idleBuffer {
		return bytes.Clone(part)
	}
	rest := r.buf[r.start:r.end]
	fresh := make([]byte, max(idleBuffer, len(rest)))
	r.base += int64(r.start)
	r.scanned -= r.start
	r.start, r.end = 0, copy(fresh, rest)
	r.buf = fresh
	return part
}

// makeRoom moves what is left to the front, and grows or shrinks the buffer.
func (r *lineReader) makeRoom() {
	n := r.end - r.start
	switch {
	case n == 0 && len(r.buf) != idleBuffer:
		r.buf = make([]byte, idleBuffer)
	case n == len(r.buf):
		bigger := make([]byte, min(4*len(r.buf), api.MaxLine+1))
		copy(bigger, r.buf[r.start:r.end])
		r.buf = bigger
	case r.start > 0 && r.end == len(r.buf), n == 0:
		copy(r.buf, r.buf[r.start:r.end])
	default:
		return
	}
	r.base += int64(r.start)
	r.scanned -= r.start
	r.start, r.end = 0, n
}

func (r *lineReader) fill() error {
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(r.buf[r.end:], r.oob[:])
	if n > 0 {
		r.end += n
		if oobn > 0 || flags&unix.MSG_CTRUNC != 0 {
			r.take(r.oob[:oobn], flags)
		}
		r.arrived()
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	r.eof = true
	return nil
}

// take keeps the descriptors of the read that ended at r.end.
func (r *lineReader) take(oob []byte, flags int) {
	b := batch{last: r.base + int64(r.end) - 1}
	b.files.over = flags&unix.MSG_CTRUNC != 0
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		msgs = nil
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			b.files.add(attached{files: []*os.File{os.NewFile(uintptr(fd), "client")}})
		}
	}
	if b.files.over {
		b.files.close()
	}
	// Only the line under way can have earlier ones; together they are bounded.
	if i := len(r.batches) - 1; i >= 0 && bytes.IndexByte(r.buf[r.scanned:r.end-1], '\n') < 0 {
		r.batches[i].last = b.last
		r.batches[i].files.add(b.files)
		return
	}
	r.batches = append(r.batches, b)
}

// filesUntil takes out the descriptors of the line that ends at offset last.
func (r *lineReader) filesUntil(last int64) attached {
	var a attached
	for len(r.batches) > 0 && r.batches[0].last <= last {
		a.add(r.batches[0].files)
		r.batches = r.batches[1:]
	}
	if len(r.batches) == 0 {
		r.batches = nil
	}
	return a
}

// close closes the descriptors that no line took.
func (r *lineReader) close() {
	for i := range r.batches {
		r.batches[i].files.close()
	}
	r.batches = nil
}
