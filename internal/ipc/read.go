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

var (
	errLineTooLong = errors.New("line too long")
	errNoRoom      = errors.New("no room for the line")
)

// lineReader cuts what a client sends into lines, and keeps the descriptors
// that came with the bytes of each. One goroutine uses it.
type lineReader struct {
	conn *net.UnixConn
	// arrived is called for each read that brought bytes, before they are looked at.
	arrived func()
	// bytes counts what is held beyond the idle buffer.
	bytes byteHolder

	buf        []byte
	skipping   bool // there was no room for the line under way
	skipped    lost
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

// lost is a line that there was no room for.
type lost struct {
	id   string // if it could be read
	noID bool
	why  *api.Error // there was no room
	n    int        // bytes that were thrown away so far
	all  int        // bytes of the whole line
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
// bytes, errNoRoom for one that there was no room for, which then is r.skipped;
// other errors are those of reading, and next may be called again after errNoRoom
// and a deadline. A last line without a newline is no line.
func (r *lineReader) next() ([]byte, attached, error) {
	for {
		if i := bytes.IndexByte(r.buf[r.scanned:r.end], '\n'); i >= 0 {
			nl := r.scanned + i
			line := r.buf[r.start:nl]
			files := r.filesUntil(r.base + int64(nl))
			r.start, r.scanned = nl+1, nl+1
			skipping, all := r.skipping, len(line)+r.skipped.n
			r.skipping, r.skipped.n = false, 0
			switch {
			case all >= api.MaxLine:
				files.close()
				return nil, attached{}, errLineTooLong
			case skipping:
				files.close()
				r.skipped.all = all
				return nil, attached{}, errNoRoom
			}
			return line, files, nil
		}
		r.scanned = r.end
		if r.end-r.start+r.skipped.n >= api.MaxLine {
			return nil, attached{}, errLineTooLong
		}
		if r.eof {
			return nil, attached{}, io.EOF
		}
		if r.skipping {
			r.skip()
		} else {
			r.makeRoom()
		}
		if err := r.fill(); err != nil {
			return nil, attached{}, err
		}
	}
}

// own makes part, of the line that next returned last, the caller's own. A large
// one is given away with its buffer if nothing else is in there, which also keeps
// idle connections small. held is how much of what is counted is the caller's now.
// The error, that of a budget without room, is for the client.
func (r *lineReader) own(part []byte) (owned []byte, held int, err error) {
	switch {
	case len(part) < idleBuffer:
		return bytes.Clone(part), 0, nil
	case r.buffered() > 0:
		if err := r.bytes.takeBytes(len(part)); err != nil {
			return nil, 0, nothingDone(err)
		}
		return bytes.Clone(part), len(part), nil
	}
	held = len(r.buf) - idleBuffer
	r.buf = make([]byte, idleBuffer)
	r.rebase()
	return part, held, nil
}

// rebase makes the buffer empty, with offsets as before.
func (r *lineReader) rebase() {
	r.base += int64(r.end)
	r.start, r.end, r.scanned = 0, 0, 0
}

// makeRoom moves what is left to the front, and grows or shrinks the buffer.
func (r *lineReader) makeRoom() {
	n := r.end - r.start
	switch {
	case n == 0 && len(r.buf) != idleBuffer:
		r.shrink()
		return
	case n == len(r.buf):
		size := min(4*len(r.buf), api.MaxLine+1)
		if err := r.bytes.takeBytes(size - len(r.buf)); err != nil {
			r.beginSkip(err)
			return
		}
		bigger := make([]byte, size)
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

// shrink makes the buffer an empty one of idleBuffer bytes, as it is at first.
func (r *lineReader) shrink() {
	r.rebase()
	r.bytes.giveBytes(r.held())
	r.buf = make([]byte, idleBuffer)
}

// held is what the buffer counts.
func (r *lineReader) held() int { return max(0, len(r.buf)-idleBuffer) }

// beginSkip throws away the line under way, and what will follow of it.
func (r *lineReader) beginSkip(why error) {
	_, id, ok, _ := api.ParseRequest(r.buf[r.start:r.end])
	r.skipping, r.skipped = true, lost{id: id, noID: !ok, why: nothingDone(why)}
	r.skip()
}

func (r *lineReader) skip() {
	r.skipped.n += r.buffered()
	if r.held() > 0 {
		r.shrink()
		return
	}
	r.rebase()
}

func (r *lineReader) fill() error {
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(r.buf[r.end:], r.oob[:])
	if n > 0 {
		r.end += n
		if oobn > 0 || flags&unix.MSG_CTRUNC != 0 {
			r.keep(r.oob[:oobn], flags)
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

// keep keeps the descriptors of the read that ended at r.end.
func (r *lineReader) keep(oob []byte, flags int) {
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

// close closes the descriptors that no line took, and gives back what is held.
func (r *lineReader) close() {
	r.bytes.giveBytes(r.held())
	r.buf = nil
	for i := range r.batches {
		r.batches[i].files.close()
	}
	r.batches = nil
}
