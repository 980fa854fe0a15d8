package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/fastn-stack/fastnd/service/api"
)

// link is one connection that requests share. It is read while an answer is to come:
// by the request that waits alone, as to be woken by another goroutine costs as much as
// half the request; by a goroutine of the link while others wait too, or where one was
// given up whose answer is still to come. One that is told things is always read.
type link struct {
	conn *net.UnixConn
	raw  syscall.RawConn // of conn
	// told gets the lines that are no answers, nil for none.
	told    func(status string, data json.RawMessage)
	done    chan struct{} // closed when the connection is known to have ended
	writing chan struct{} // held while a line is written
	in      lines         // used by who reads

	mu      sync.Mutex
	waiting map[string]chan result // nil: nobody waits any more
	reading bool                   // somebody reads
	nextID  uint64
	retired bool       // no more requests are sent here
	over    bool       // the connection is known to have ended, or ends
	refused *api.Error // the daemon said this to the connection as a whole
}

// result is an answer, or the end of the connection.
type result struct {
	data json.RawMessage
	err  error
}

func newLink(conn *net.UnixConn, told func(string, json.RawMessage)) *link {
	l := &link{conn: conn, told: told, done: make(chan struct{}), writing: make(chan struct{}, 1), waiting: make(map[string]chan result)}
	l.in.r = bufio.NewReader(conn)
	l.raw, _ = conn.SyscallConn() // fails only if conn is nil
	if told != nil {
		l.reading = true
		go l.read()
	}
	return l
}

// close ends the connection, and returns when it has ended.
func (l *link) close() {
	l.mu.Lock()
	l.retired = true // or who reads may leave, and nobody notice the end
	l.mu.Unlock()
	l.conn.Close()
	l.awaitEnd()
}

// usable tells whether a new request may be sent here. One at which nothing was to come
// is looked at: the daemon may have ended it, or refused it, long ago.
func (l *link) usable() bool {
	l.mu.Lock()
	if l.over || l.retired {
		l.mu.Unlock()
		return false
	}
	if l.reading || len(l.waiting) > 0 {
		l.mu.Unlock()
		return true
	}
	l.reading = true
	l.mu.Unlock()
	quiet := l.in.empty() && silent(l.raw)
	if !quiet {
		l.mu.Lock()
		l.retired = true
		l.mu.Unlock()
	}
	l.endReading()
	return quiet
}

// ended tells that the connection is closed and nothing of it is left.
func (l *link) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// retire keeps new requests away. The connection ends once those that wait have their
// answers.
func (l *link) retire() {
	l.mu.Lock()
	l.retired = true
	l.mu.Unlock()
	l.settle()
}

// settle ends the connection if it was retired and nothing is to come.
func (l *link) settle() {
	if l.beginReading() {
		l.endReading()
	}
}

// do sends r and waits for its answer. unsent tells that the daemon has done
// nothing, so that r may be sent on another connection.
func (l *link) do(ctx context.Context, r *api.Request, files []*os.File) (data json.RawMessage, unsent bool, err error) {
	id, answer, err := l.enter()
	if err != nil {
		return nil, true, err
	}
	own := *r
	own.ID = id
	if unsent, err := l.write(ctx, &own, files); err != nil {
		l.drop(id)
		return nil, unsent, err
	}
	res, err := l.await(ctx, id, answer)
	if err != nil {
		return nil, false, err
	}
	// The daemon says unavailable of itself, and only where it has done nothing.
	return res.data, api.CodeOf(res.err) == api.CodeUnavailable, res.err
}

func (l *link) enter() (id string, answer chan result, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return "", nil, l.errUnsent()
	}
	l.nextID++
	id = strconv.FormatUint(l.nextID, 36)
	answer = make(chan result, 1)
	l.waiting[id] = answer
	return id, answer, nil
}

// drop forgets a request that was not sent whole.
func (l *link) drop(id string) {
	l.mu.Lock()
	delete(l.waiting, id)
	l.mu.Unlock()
	l.settle()
}

// await waits for the answer to a request that was sent; who finds that nobody reads
// does so until it has its own.
func (l *link) await(ctx context.Context, id string, answer chan result) (res result, err error) {
	if l.beginReading() {
		l.readUntil(ctx, answer)
	}
	select {
	case res = <-answer:
	case <-ctx.Done():
		if l.giveUp(id) {
			return result{}, contextError(ctx)
		}
		res = <-answer
	}
	return res, nil
}

// giveUp has the answer thrown away when it comes; false if it is there already.
func (l *link) giveUp(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, still := l.waiting[id]
	if still {
		l.waiting[id] = nil
	}
	return still
}

func (l *link) beginReading() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading || l.over {
		return false
	}
	l.reading = true
	return true
}

// endReading leaves the reading to another goroutine, if more is to come.
func (l *link) endReading() {
	if !l.leave() {
		go l.read()
	}
}

// leave ends the reading, and the connection if that was retired; false, and it does
// nothing, if more is to come.
func (l *link) leave() bool {
	l.mu.Lock()
	if !l.over && (l.told != nil || len(l.waiting) > 0) {
		l.mu.Unlock()
		return false
	}
	last := l.retired && !l.over
	l.reading = last
	l.over = l.over || last // nobody enters any more
	l.mu.Unlock()
	if last {
		l.end()
	}
	return true
}

// readUntil reads until answer holds one, ctx ends, or the connection does.
func (l *link) readUntil(ctx context.Context, answer chan result) {
	defer l.endReading()
	defer interrupt(ctx, l.conn.SetReadDeadline)()
	for len(answer) == 0 {
		err := l.readOne()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			l.end()
			return
		}
	}
}

// awaitEnd returns when the connection has ended, and what the daemon said before was
// read.
func (l *link) awaitEnd() {
	if l.beginReading() {
		for l.readOne() == nil {
		}
		l.end()
	}
	<-l.done
}

// errUnsent is the error of a request that found the connection closed. l.mu is held.
func (l *link) errUnsent() error {
	if l.refused != nil {
		return l.refused
	}
	return unavailable(l.conn.RemoteAddr().String(), "it closed the connection")
}

// write sends r as one line.
func (l *link) write(ctx context.Context, r *api.Request, files []*os.File) (unsent bool, err error) {
	line, err := appendLine(r)
	if err != nil {
		return false, err
	}
	select {
	case l.writing <- struct{}{}:
	case <-ctx.Done():
		return false, contextError(ctx)
	}
	defer func() { <-l.writing }()
	n, err := writeLine(ctx, l.conn, line, files)
	switch {
	case err == nil:
		return false, nil
	case n > 0:
		// The rest of the line cannot follow any more.
		l.close()
		return false, outcomeUnknown()
	case ctx.Err() != nil:
		return false, contextError(ctx)
	case api.CodeOf(err) == api.CodeBadRequest:
		return false, err
	}
	if !brokenConn(err) { // of this machine: there is no room for a descriptor, say
		return false, unavailable(l.conn.RemoteAddr().String(), err.Error())
	}
	// The daemon has closed. What it said before is read first.
	l.awaitEnd()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused == nil || l.refused.Code == api.CodeUnavailable, l.errUnsent()
}

// read reads for those who wait, until there are none.
func (l *link) read() {
	for l.readOne() == nil {
		if l.leave() {
			return
		}
	}
	l.end()
}

// readOne reads a line and hands it to who waits for it.
func (l *link) readOne() error {
	line, err := l.in.next()
	if err != nil {
		return err
	}
	a, err := parseAnswer(line)
	if err == nil {
		l.deliver(a)
	}
	return err
}

// end tells all who wait that the connection has ended. It is called once, by who reads.
func (l *link) end() {
	defer close(l.done)
	l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	end := result{err: outcomeUnknown()}
	if l.refused != nil {
		end.err = l.refused
	}
	for _, answer := range l.waiting {
		if answer != nil {
			answer <- end
		}
	}
	clear(l.waiting)
}

func (l *link) deliver(a answer) {
	switch a.status {
	case api.StatusIncoming, api.StatusEvent:
		if l.told != nil {
			l.told(a.status, a.data)
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.noID {
		l.refused = api.AsError(a.err)
		return
	}
	answer := l.waiting[a.id]
	delete(l.waiting, a.id)
	if answer != nil {
		answer <- result{data: a.data, err: a.err}
	}
}
