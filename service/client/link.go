package client

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/fastn-stack/fastnd/service/api"
)

// link is one connection that requests share. One goroutine reads its answers.
type link struct {
	conn *net.UnixConn
	// told gets the lines that are no answers, nil for none.
	told    func(status string, data json.RawMessage)
	done    chan struct{} // closed when the reader has ended
	writing chan struct{} // held while a line is written

	mu      sync.Mutex
	waiting map[string]chan result
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
	go l.read()
	return l
}

// close ends the connection and waits for its reader.
func (l *link) close() {
	l.conn.Close()
	<-l.done
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

// retire keeps new requests away. Those that wait still get their answers; then
// the daemon closes.
func (l *link) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired = true
}

// do sends r and waits for its answer. unsent tells that the daemon has done
// nothing, so that r may be sent on another connection.
func (l *link) do(ctx context.Context, r *api.Request, files []*os.File) (data json.RawMessage, unsent bool, err error) {
	id, answer, err := l.enter()
	if err != nil {
		return nil, true, err
	}
	defer l.leave(id)
	own := *r
	own.ID = id
	if unsent, err := l.write(ctx, &own, files); err != nil {
		return nil, unsent, err
	}
	select {
	case res := <-answer:
		// The daemon says unavailable of itself, and only where it has done nothing.
		return res.data, api.CodeOf(res.err) == api.CodeUnavailable, res.err
	case <-ctx.Done():
		return nil, false, contextError(ctx)
	}
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

func (l *link) leave(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, id)
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
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused == nil, l.errUnsent()
}

// read hands out answers until the connection ends; then it tells all who wait.
func (l *link) read() {
	defer close(l.done)
	in := bufio.NewReader(l.conn)
	for {
		line, err := readLine(in)
		if err != nil {
			break
		}
		a, err := parseAnswer(line)
		if err != nil {
			break
		}
		l.deliver(a)
	}
	l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	end := result{err: outcomeUnknown()}
	if l.refused != nil {
		end.err = l.refused
	}
	for _, answer := range l.waiting {
		answer <- end
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
	// Nobody waits any more for what was given up.
	if answer := l.waiting[a.id]; answer != nil {
		delete(l.waiting, a.id)
		answer <- result{data: a.data, err: a.err}
	}
}
