package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
)

// resetTime bounds how long Close takes to tell the daemon of an abort.
const resetTime = 2 * time.Second

// Stream is bytes both ways, on a connection of its own. One goroutine may read
// while another writes; the rest may be called at any time.
type Stream struct {
	c      *Client
	conn   *net.UnixConn
	id     string
	before []byte // came with the answer

	mu       sync.Mutex
	readEnd  bool
	writeEnd bool
	closed   bool
}

// Stream opens a stream. ctx bounds the opening only.
func (c *Client) Stream(ctx context.Context, q Request) (*Stream, error) {
	r := c.request(api.TypeStream, q)
	r.Stream = api.NewUUID()
	return c.openStream(ctx, r, r.Stream)
}

// openStream sends r on a connection of its own, which the answer makes raw.
func (c *Client) openStream(ctx context.Context, r *api.Request, id string) (*Stream, error) {
	c.complete(ctx, r)
	for again := false; ; again = true {
		conn, err := c.dial(ctx)
		if err != nil {
			return nil, err
		}
		in, err := first(ctx, conn, r, api.StatusStreaming)
		if err == nil {
			before, _ := in.Peek(in.Buffered())
			return &Stream{c: c, conn: conn, id: id, before: before}, nil
		}
		conn.Close()
		if api.CodeOf(err) != api.CodeUnavailable || again {
			return nil, err
		}
	}
}

// first sends r as the first request of conn and reads its answer, whose status
// must be want. What follows the answer is in the reader.
func first(ctx context.Context, conn *net.UnixConn, r *api.Request, want string) (*bufio.Reader, error) {
	_, in, err := firstData(ctx, conn, r, want)
	return in, err
}

func firstData(ctx context.Context, conn *net.UnixConn, r *api.Request, want string) (json.RawMessage, *bufio.Reader, error) {
	own := *r
	own.ID = "0"
	line, err := appendLine(&own)
	if err != nil {
		return nil, nil, err
	}
	defer interrupt(ctx, conn.SetDeadline)()
	sent, writeErr := writeLine(ctx, conn, line, nil)
	in := bufio.NewReader(conn)
	// Even if the request was not taken: the daemon may have said why before.
	answerLine, err := readLine(in)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, nil, contextError(ctx)
	case writeErr != nil && sent == 0:
		return nil, nil, unavailable(conn.RemoteAddr().String(), "it closed the connection")
	default:
		return nil, nil, outcomeUnknown()
	}
	a, err := parseAnswer(answerLine)
	switch {
	case err != nil:
		return nil, nil, api.Errorf(api.CodeInternal, "the daemon's answer cannot be read: %v", err)
	case a.err != nil:
		return nil, nil, a.err
	case a.status != want:
		return nil, nil, api.Errorf(api.CodeInternal, "the daemon answered %q, not %q", a.status, want)
	}
	return a.data, in, nil
}

// ID names the stream for stream.result and stream.reset.
func (s *Stream) ID() string { return s.id }

// Read returns io.EOF at the other side's end, and where the stream was aborted:
// Result tells which.
func (s *Stream) Read(p []byte) (int, error) {
	if len(s.before) > 0 {
		n := copy(p, s.before)
		s.before = s.before[n:]
		return n, nil
	}
	n, err := s.conn.Read(p)
	return n, s.readError(err)
}

// WriteTo lets io.Copy move bytes without a buffer of ours.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s.before)
	s.before = s.before[n:]
	if err != nil {
		return int64(n), err
	}
	m, err := io.Copy(w, s.conn)
	switch {
	case err == nil:
		_ = s.readError(io.EOF) // notes the end
	case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed):
		err = s.readError(err)
	}
	return int64(n) + m, err
}

func (s *Stream) readError(err error) error {
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, io.EOF) {
		s.readEnd = true
		return io.EOF
	}
	if s.closed {
		return api.Errorf(api.CodeCancelled, "the stream is closed")
	}
	return api.Errorf(api.CodeAborted, "the stream was aborted")
}

// Write sends p.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.conn.Write(p)
	return n, s.writeError(err)
}

// ReadFrom lets io.Copy move bytes without a buffer of ours.
func (s *Stream) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(s.conn, r)
	if brokenConn(err) {
		err = s.writeError(err)
	}
	return n, err
}

// brokenConn tells an error of the connection from one of what is copied to or
// from it.
func brokenConn(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

func (s *Stream) writeError(err error) error {
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return api.Errorf(api.CodeCancelled, "the stream is closed")
	}
	return api.Errorf(api.CodeAborted, "the stream was aborted")
}

// CloseWrite ends what this side sends; the other side reads on to that end.
func (s *Stream) CloseWrite() error {
	err := s.conn.CloseWrite()
	s.mu.Lock()
	s.writeEnd = true
	s.mu.Unlock()
	return s.writeError(err)
}

// Close releases the stream. Before both directions have ended it aborts: the
// other side is told so, and does not take what it got for the whole.
func (s *Stream) Close() error {
	s.mu.Lock()
	over := s.closed || s.readEnd && s.writeEnd
	s.closed = true
	s.mu.Unlock()
	if !over {
		ctx, cancel := context.WithTimeout(context.Background(), resetTime)
		defer cancel()
		// The stream may have ended meanwhile, and the daemon too.
		_ = s.Reset(ctx)
	}
	return s.conn.Close()
}

// Reset aborts the stream.
func (s *Stream) Reset(ctx context.Context) error {
	_, err := s.c.do(ctx, &api.Request{Type: api.TypeStreamReset, Stream: s.id})
	return err
}

// Result waits for the stream's end and tells whether it was clean: both
// directions ended, neither was aborted. It can be asked for 5 minutes.
func (s *Stream) Result(ctx context.Context) (api.StreamResult, error) {
	var res api.StreamResult
	data, err := s.c.do(ctx, &api.Request{Type: api.TypeStreamResult, Stream: s.id})
	if err != nil {
		return res, err
	}
	if err := json.Unmarshal(data, &res); err != nil {
		return res, api.Errorf(api.CodeInternal, "the daemon's answer cannot be read: %v", err)
	}
	return res, nil
}
