package ipc

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// freeQueue is how many bytes of answers wait for a client without being counted:
// the number of connections bounds them.
const freeQueue = 2 << 10

// keptBuffer is the largest buffer that a connection keeps between answers.
const keptBuffer = 1 << 10

var (
	errWriteClosed = errors.New("the connection is closed")
	errQueueFull   = errors.New("the client does not read")
)

// urgency is what is to happen with a line when the queue is full.
type urgency uint8

const (
	answer  urgency = iota // wait, and cut the client off if it does not read within the time
	patient                // wait for as long as it takes
	atOnce                 // errQueueFull
)

// deadlineConn is the part of a net.Conn that a writer uses.
type deadlineConn interface {
	Write(b []byte) (int, error)
	SetWriteDeadline(t time.Time) error
}

// writer queues the lines of one connection and writes them in batches. Whoever
// adds a line to an idle writer flushes it, so that no goroutine waits for work;
// all others leave at once unless the queue is full.
type writer struct {
	conn    deadlineConn
	limit   int           // bytes from which the queue is full
	timeout time.Duration // for a client that leaves a full queue unread
	bytes   byteHolder    // counts what is queued
	cut     func()        // ends the connection; called once, by the flusher

	mu       sync.Mutex
	changed  sync.Cond // room was made, or the queue is empty, or err is set
	pending  []byte
	counted  int // bytes that pending counts
	spare    []byte
	flushing bool
	armed    bool // the write deadline is set
	pressing bool // pending is to be read in time though nobody waits for room
	err      error
}

func (w *writer) init(conn deadlineConn, o Options, bytes byteHolder, cut func()) {
	w.conn, w.limit, w.timeout, w.bytes, w.cut = conn, o.WriteQueue, o.WriteTimeout, bytes, cut
	w.changed.L = &w.mu
}

// begin locks the writer for n bytes to be appended to w.pending, not counted yet.
// Without an error the caller calls end.
func (w *writer) begin(u urgency, n int) error {
	w.mu.Lock()
	for w.err == nil && (len(w.pending) >= w.limit || !w.count(n)) {
		if u == atOnce {
			w.mu.Unlock()
			return errQueueFull
		}
		if u == answer {
			w.arm()
		}
		w.changed.Wait()
	}
	if w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	return nil
}

// count counts n more bytes of pending; false if there is no room until what is
// pending is written; behind nothing a line would wait for ever. w.mu is held.
func (w *writer) count(n int) bool {
	if len(w.pending) == 0 || len(w.pending)+n <= freeQueue {
		return true
	}
	if w.bytes.takeBytes(n) != nil {
		return false
	}
	w.counted += n
	return true
}

// end unlocks the writer. If it returns true the caller calls flush, which may
// take as long as the client takes to read.
func (w *writer) end() (mustFlush bool) {
	mustFlush = !w.flushing
	w.flushing = true
	w.mu.Unlock()
	return mustFlush
}

// line queues an answer; see end for what it returns. A large one that there is
// no room for is refused with the budget's error, or errQueueFull if it is atOnce;
// it must not wait for room, since it is in memory already.
func (w *writer) line(u urgency, id, status string, data []byte) (mustFlush bool, err error) {
	uncounted, counted := len(data), 0
	if uncounted > freeQueue && u != patient {
		if err := w.bytes.takeBytes(len(data)); err != nil {
			if u == atOnce {
				err = errQueueFull
			}
			return false, err
		}
		uncounted, counted = 0, len(data)
	}
	if err := w.begin(u, uncounted); err != nil {
		w.bytes.giveBytes(counted)
		return false, err
	}
	w.counted += counted
	w.pending = api.AppendAnswer(w.pending, id, status, data)
	w.pressing = w.pressing || u == answer && len(w.pending) > w.limit
	return w.end(), nil
}

// last queues an answer that no other line follows, and returns when it is written.
// A client that leaves it unread, or what is queued before it, is cut off, however
// little that is.
func (w *writer) last(id, status string) error {
	if err := w.begin(answer, 0); err != nil {
		return err
	}
	w.pending = api.AppendAnswer(w.pending, id, status, nil)
	w.pressing = true
	w.arm() // what is being written too
	if w.end() {
		w.flush()
	}
	return w.idle()
}

// fail queues the answer of an error.
func (w *writer) fail(id string, noID bool, e *api.Error) (mustFlush bool, err error) {
	if err := w.begin(answer, len(e.Message)+len(e.Hint)+len(e.Peer)); err != nil {
		return false, err
	}
	w.pending = api.AppendError(w.pending, id, noID, e)
	return w.end(), nil
}

func (w *writer) flush() {
	w.mu.Lock()
	for len(w.pending) > 0 && w.err == nil {
		buf, counted := w.pending, w.counted
		w.pending, w.spare, w.counted = w.spare, nil, 0
		if w.pressing {
			w.pressing = false
			w.arm()
		}
		w.changed.Broadcast()
		w.mu.Unlock()
		_, err := w.conn.Write(buf)
		w.bytes.giveBytes(counted)
		w.mu.Lock()
		if cap(buf) <= keptBuffer || len(w.pending) > 0 && w.spare == nil {
			w.spare = buf[:0]
		}
		if err != nil && w.err == nil {
			w.err = err
			if errors.Is(err, os.ErrDeadlineExceeded) {
				w.err = errQueueFull
			}
		}
		if w.armed && w.err == nil {
			w.armed = false
			w.setDeadline(time.Time{})
		}
	}
	w.flushing = false
	if cap(w.spare) > keptBuffer {
		w.spare = nil
	}
	if cap(w.pending) > keptBuffer {
		w.pending = nil
	}
	failed := w.err != nil
	w.changed.Broadcast()
	w.mu.Unlock()
	if failed {
		w.cut()
	}
}

// arm gives the client timeout to read what is being written, if it has no limit
// yet. w.mu is held.
func (w *writer) arm() {
	if !w.armed {
		w.armed = true
		w.setDeadline(time.Now().Add(w.timeout))
	}
}

// setDeadline also works on a Write under way. A closed connection needs none.
func (w *writer) setDeadline(t time.Time) {
	if err := w.conn.SetWriteDeadline(t); err != nil && w.err == nil && !errors.Is(err, net.ErrClosed) {
		w.err = err
	}
}

// idle waits until everything queued is written, or nothing can be.
func (w *writer) idle() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.flushing && w.err == nil {
		w.changed.Wait()
	}
	return w.err
}

// close makes all who add lines fail from now on, and wakes those who wait.
func (w *writer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = errWriteClosed
	}
	w.changed.Broadcast()
}

// forget gives back what was never written. Nothing is added any more.
func (w *writer) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes.giveBytes(w.counted)
	w.pending, w.counted = nil, 0
}
