package ipc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/crew"
	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// Server serves the control socket. It runs from New to Close:
//
//	serving ──Close──▶ draining (new requests are answered "unavailable",
//	answers in flight finish, those who only wait are told, programs reply
//	to the calls that they were told of) ──all done, or DrainTimeout──▶ closed
type Server struct {
	backend   Backend
	log       *slog.Logger
	o         Options
	types     map[string]requestType
	streams   streamTable
	incoming  incomingTable
	pace      *pace
	crew      crew.Crew // does the requests
	lingering lingering
	// stopping ends when draining begins, as it is told; see onlyWaits.
	stopping context.Context
	stop     context.CancelCauseFunc

	// wg counts connections and accept loops.
	wg sync.WaitGroup

	mu        sync.Mutex
	draining  bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
}

// New makes a Server that answers by b.
func New(b Backend, log *slog.Logger, o Options) *Server {
	s := &Server{backend: b, log: log, o: o.withDefaults(), types: requestTypes(), pace: newPace(),
		listeners: make(map[net.Listener]struct{}), conns: make(map[*conn]struct{})}
	s.stopping, s.stop = context.WithCancelCause(context.Background())
	s.streams.init(s.o.StreamResults, api.StreamResultTTL)
	return s
}

// Serve takes connections from l, which must be of Unix sockets and is closed
// in the end, until ctx ends or Close is called; then it returns nil. Other
// errors are those of l. Connections live on until Close.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if !s.addListener(l) {
		return l.Close()
	}
	defer s.wg.Done()
	defer s.dropListener(l)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			s.start(nc)
			continue
		}
		if ctx.Err() != nil || s.isDraining() {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		// Out of descriptors or memory: clients wait in the backlog meanwhile.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log.Warn("cannot take a connection on the control socket", "error", err, "retry_in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.listeners[l] = struct{}{}
	s.wg.Add(1)
	return true
}

func (s *Server) dropListener(l net.Listener) {
	l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

func (s *Server) start(nc net.Conn) {
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		return
	}
	c := newConn(s, uc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		// Taken just before the listener was closed, maybe with a request that is
		// not read any more: its sender must learn that nothing was done.
		c.tell(errStopping())
		c.cut(nil)
		return
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		c.run()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	}()
}

// Disconnect cuts all connections of uid and tells how many there were. What
// they had in flight is cancelled; one that asked for it, with daemon.disconnect,
// gets its answer first.
func (s *Server) Disconnect(uid uint32) int {
	n := 0
	for _, c := range s.connections() {
		if c.belongsTo(uid) {
			c.dismiss(api.Errorf(api.CodeCancelled, "an administrator disconnected the user"))
			n++
		}
	}
	return n
}

// EndListeners ends the registrations of owner, which is an identity here no
// more, and closes the connections that are for nothing else, so that their
// programs learn of it.
func (s *Server) EndListeners(owner identity.ID) {
	for _, c := range s.connections() {
		c.endListeners(owner)
	}
}

// IdleGoroutines is how many goroutines are kept for the next requests.
func (s *Server) IdleGoroutines() int { return s.crew.Idle() }

func (s *Server) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

// Close stops taking connections and requests, lets answers in flight finish for
// at most DrainTimeout, cuts what is left, streams included, and returns when
// everything has ended. It may be called again.
func (s *Server) Close() {
	s.mu.Lock()
	s.draining = true
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	s.stop(errStopping())
	bound := time.NewTimer(s.o.DrainTimeout)
	defer bound.Stop()
	conns := s.connections()
	for _, c := range conns {
		c.drain()
	}
	for _, c := range conns {
		if c.isRaw() {
			continue
		}
		select {
		case <-c.done:
		case <-bound.C:
			bound.Reset(0)
		}
	}
	for _, c := range s.connections() {
		c.cutFor(errStopping())
	}
	s.wg.Wait()
	s.crew.Close()
	s.streams.close()
}

func errStopping() *api.Error {
	return api.Errorf(api.CodeUnavailable, "the daemon is stopping; nothing was done").
		WithHint("try again when it runs")
}
