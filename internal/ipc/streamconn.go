package ipc

import (
	"errors"
	"io"
	"net"
	"sync"

	"github.com/fastn-stack/fastnd/service/api"
)

// streamConn is the router.Conn over the raw connection of a local client. An
// end of file is the client's clean end only while the client is there, or once
// our direction to it has ended: one that was killed ends its file too.
type streamConn struct {
	uc    *net.UnixConn
	ended chan struct{} // closed at the client's clean end

	mu       sync.Mutex
	readEnd  bool
	writeEnd bool
	why      *api.Error // why it was reset; the first reason counts
	left     bool       // why is only that it was closed before its end
}

func (s *streamConn) Read(p []byte) (int, error) {
	s.mu.Lock()
	over, why := s.readEnd, s.why
	s.mu.Unlock()
	switch {
	case why != nil:
		return 0, why
	case over:
		return 0, io.EOF
	}
	n, err := s.uc.Read(p)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		return n, s.sawEnd()
	}
	return n, s.broken()
}

func (s *streamConn) sawEnd() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why == nil && !s.writeEnd && peerClosed(s.uc) {
		s.why = errClosedEarly()
		hangUp(s.uc)
	}
	if s.why != nil {
		return s.why
	}
	if !s.readEnd {
		s.readEnd = true
		close(s.ended)
	}
	return io.EOF
}

func (s *streamConn) Write(p []byte) (int, error) {
	n, err := s.uc.Write(p)
	if err != nil {
		return n, s.broken()
	}
	return n, nil
}

func (s *streamConn) CloseWrite() error {
	// In one with the note of it: the client may see the end and close at once.
	s.mu.Lock()
	err := s.uc.CloseWrite()
	s.writeEnd = s.writeEnd || err == nil
	s.mu.Unlock()
	if err != nil {
		return s.broken()
	}
	return nil
}

// broken is the error of a connection that failed without our doing.
func (s *streamConn) broken() error {
	return s.abort(errClosedEarly())
}

func errClosedEarly() *api.Error {
	return api.Errorf(api.CodeAborted, "the client closed the stream before its end")
}

// Reset ends both directions. The client sees an end of file; stream.result
// tells it the code.
func (s *streamConn) Reset(code api.Code) {
	s.abort(api.Errorf(code, "%s", resetText(code)))
}

func (s *streamConn) abort(why *api.Error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why == nil {
		s.why = why
	}
	hangUp(s.uc)
	return s.why
}

// Close releases the stream; before both ends are done it aborts.
func (s *streamConn) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why == nil && !(s.readEnd && s.writeEnd) {
		s.why, s.left = api.Errorf(api.CodeAborted, "%s", resetText(api.CodeAborted)), true
	}
	hangUp(s.uc)
	return nil
}

// finish closes the stream after its handler returned err, and tells how it
// ended. cause is why the handler was stopped, if it was.
func (s *streamConn) finish(err error, cause *api.Error) api.StreamResult {
	if err != nil || cause != nil {
		e := cause
		if e == nil {
			e = api.AsError(err)
		}
		s.mu.Lock()
		if s.why == nil || s.left || s.why.Code == e.Code {
			s.why = e // it says more than the code alone
		}
		s.mu.Unlock()
	}
	s.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why == nil {
		return api.StreamResult{Clean: true}
	}
	return api.StreamResult{Code: s.why.Code, Reason: s.why.Message}
}

func resetText(code api.Code) string {
	switch code {
	case api.CodeAborted:
		return "the stream was reset before its end"
	case api.CodeStalled:
		return "the stream was reset because its reader stopped reading"
	case api.CodeCancelled:
		return "the stream was reset because its caller went away"
	}
	return "the stream was reset: " + string(code)
}
