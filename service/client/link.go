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
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// link is one connection that requests share. It is read while an answer is to come:
// by the request that waits alone, as to be woken by another goroutine costs as much as
// half the request; by a goroutine of the link while others wait too, or where one was
// given up whose answer is still to come. One that is told things is always read.
type link struct {
	conn *net.UnixConn
	// told gets the lines that are no answers, nil for none.
	told    func(status string, data json.RawMessage)
	done    chan struct{} // closed when the connection has ended
	writing chan struct{} // held while a line is written
	in      lines         // used by who reads

	mu      sync.Mutex
	waiting map[string]chan result // nil: nobody waits any more
	reading bool                   // somebody reads
	nextID  uint64
	retired bool       // the daemon takes no more requests here
	over    bool       // the connection has ended
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
	if told != nil {
		l.reading = true
		go l.read()
	}
	return l
}

// close ends the connection and waits for who reads.
func (l *link) close() {
	l.conn.Close()
	l.readOut()
}

func (l *link) usable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.over && !l.retired
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

// retire keeps new requests away. Those that wait still get their answers.
func (l *link) retire() {
	l.mu.Lock()
	l.retired = true
	l.mu.Unlock()
	l.closeUnused()
}

// closeUnused closes one that was retired, once nothing is to come any more.
func (l *link) closeUnused() {
	l.mu.Lock()
	unused := l.retired && len(l.waiting) == 0 && !l.reading
	l.mu.Unlock()
	if unused {
		l.close()
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

// drop forgets a request that was not sent, as a whole.
func (l *link) drop(id string) {
	l.mu.Lock()
	delete(l.waiting, id)
	l.mu.Unlock()
	l.closeUnused()
}

// giveUp has the answer thrown away when it comes.
func (l *link) giveUp(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, still := l.waiting[id]; still {
		l.waiting[id] = nil
	}
}

// await waits for the answer to a request that was sent; who finds that nobody reads
// does so until it has its own.
func (l *link) await(ctx context.Context, id string, answer chan result) (res result, err error) {
	if l.beginReading() {
		l.readUntil(ctx, answer)
	}
	select {
	case res = <-answer:
	default:
		select {
		case res = <-answer:
		case <-ctx.Done():
			l.giveUp(id)
			return result{}, contextError(ctx)
		}
	}
	l.closeUnused()
	return res, nil
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		go l.read()
		return
	}
	l.reading = false
}

// readUntil reads until answer holds one, ctx ends, or the connection does.
func (l *link) readUntil(ctx context.Context, answer chan result) {
	if ctx.Done() != nil {
		woken := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			defer close(woken)
			_ = l.conn.SetReadDeadline(past) // fails only if conn is closed
		})
		defer func() {
			if !stop() {
				<-woken
				_ = l.conn.SetReadDeadline(time.Time{})
			}
			l.endReading()
		}()
	} else {
		defer l.endReading()
	}
	for len(answer) == 0 {
		if err := l.readOne(); errors.Is(err, os.ErrDeadlineExceeded) {
			return
		} else if err != nil {
			l.end()
			return
		}
	}
}

// readOut returns when the connection has ended and what the daemon said before was
// read.
func (l *link) readOut() {
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
	// The daemon has closed. What it said before is read first.
	l.readOut()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused == nil, l.errUnsent()
}

// read reads for those who wait, until there are none.
func (l *link) read() {
	for l.readOne() == nil {
		if l.rest() {
			l.closeUnused()
			return
		}
	}
	l.end()
}

// rest ends the reading if nothing is to come.
func (l *link) rest() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told != nil || len(l.waiting) > 0 {
		return false
	}
	l.reading = false
	return true
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
