package systemd

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// queueLength bounds the records waiting for a journal that is slow; with
// maxRecord it bounds their memory too.
const queueLength = 512

const (
	writeTimeout = 5 * time.Second
	closeTimeout = 2 * time.Second
)

// journalWriter owns the socket to journald and the goroutine that writes to
// it, so that a journal that stalls never holds up the daemon: beyond the
// queue, records are dropped and counted, and the count is logged.
type journalWriter struct {
	path       string
	identifier string // SYSLOG_IDENTIFIER of every record
	queue      chan []byte
	dropped    atomic.Uint64
	done       chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	conn    *net.UnixConn
	closing bool
	until   time.Time // set with closing: no write lasts longer
}

func openJournal(path, identifier string) (*journalWriter, error) {
	w := &journalWriter{path: path, identifier: identifier, queue: make(chan []byte, queueLength), done: make(chan struct{})}
	if err := w.dial(); err != nil {
		return nil, err
	}
	go w.run()
	return w, nil
}

// enqueue never blocks.
func (w *journalWriter) enqueue(record []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closing {
		select {
		case w.queue <- record:
			return
		default:
		}
	}
	w.dropped.Add(1)
}

// Close ends the goroutine after the queue is written, or closeTimeout later.
func (w *journalWriter) Close() error {
	w.mu.Lock()
	if !w.closing {
		w.closing = true
		w.until = time.Now().Add(closeTimeout)
		// Also cuts short a write that waits now.
		w.conn.SetWriteDeadline(w.until)
		close(w.queue)
	}
	w.mu.Unlock()
	<-w.done
	return nil
}

func (w *journalWriter) run() {
	defer close(w.done)
	defer func() { w.conn.Close() }()
	var told uint64
	for record := range w.queue {
		if err := w.write(record); err != nil {
			w.dropped.Add(1)
			continue
		}
		if n := w.dropped.Load(); n > told && w.write(w.droppedRecord(n-told)) == nil {
			told = n
		}
	}
}

func (w *journalWriter) droppedRecord(n uint64) []byte {
	var e entry
	e.add(nil, slog.Uint64("dropped", n))
	return e.encode(w.identifier, slog.LevelWarn, "log records were dropped: the journal did not take them in time")
}

// write sends one datagram; if the journal's socket was replaced it connects
// again, once.
func (w *journalWriter) write(record []byte) error {
	w.setDeadline()
	_, err := w.conn.Write(record)
	if err == nil || isTimeout(err) {
		return err
	}
	if err := w.dial(); err != nil {
		return err
	}
	w.setDeadline()
	_, err = w.conn.Write(record)
	return err
}

func (w *journalWriter) setDeadline() {
	w.mu.Lock()
	defer w.mu.Unlock()
	until := time.Now().Add(writeTimeout)
	if w.closing && w.until.Before(until) {
		until = w.until
	}
	w.conn.SetWriteDeadline(until)
}

// dial connects the socket: an unconnected one is always reported writable,
// so a write to a full journal would not be woken when it has room again.
func (w *journalWriter) dial() error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: w.path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		w.conn.Close()
	}
	w.conn = conn
	return nil
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}
