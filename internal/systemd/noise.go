package systemd

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// PeerKey is the attribute that names the peer a record is about.
const PeerKey = "peer"

// Limits of [QuietPeers]: so many records of one text per peer and minute.
const (
	noiseBurst  = 10
	noiseWindow = time.Minute
	maxNoisy    = 4096
)

// QuietPeers passes on what next would log, but of records with the attribute
// [PeerKey] at most ten of the same text per peer and minute, so that a peer
// cannot fill the journal. The first record after that tells in "suppressed"
// how many were left out. Records without a peer all pass.
//
// At most 4,096 peers and texts are told apart; all further ones share one
// limit, because identities cost nothing to make.
func QuietPeers(next slog.Handler) slog.Handler {
	return &quietHandler{next: next, state: &noiseState{seen: map[noiseKey]*noise{}}}
}

type quietHandler struct {
	next    slog.Handler
	state   *noiseState
	peer    string // from WithAttrs
	grouped bool
}

type noiseKey struct{ peer, text string }

type noise struct {
	since      time.Time
	passed     int
	suppressed int
}

type noiseState struct {
	mu   sync.Mutex
	seen map[noiseKey]*noise
}

// Enabled implements [slog.Handler].
func (h *quietHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.next.Enabled(ctx, l)
}

// WithAttrs implements [slog.Handler].
func (h *quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.next = h.next.WithAttrs(attrs)
	for _, a := range attrs {
		if a.Key == PeerKey && !h.grouped {
			c.peer = a.Value.String()
		}
	}
	return &c
}

// WithGroup implements [slog.Handler].
func (h *quietHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.next = h.next.WithGroup(name)
	c.grouped = h.grouped || name != ""
	return &c
}

// Handle implements [slog.Handler].
func (h *quietHandler) Handle(ctx context.Context, r slog.Record) error {
	peer := h.peer
	if !h.grouped {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == PeerKey {
				peer = a.Value.String()
			}
			return true
		})
	}
	if peer == "" {
		return h.next.Handle(ctx, r)
	}
	pass, suppressed := h.state.take(noiseKey{peer, r.Message})
	if !pass {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", suppressed))
	}
	return h.next.Handle(ctx, r)
}

// take counts one record and tells whether it may pass and how many did not
// since the last one that did.
func (s *noiseState) take(key noiseKey) (pass bool, suppressed int) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.seen[key]
	if n == nil {
		if len(s.seen) >= maxNoisy {
			s.forget(now)
		}
		if len(s.seen) >= maxNoisy {
			key = noiseKey{} // shared by all that do not fit
		}
		if n = s.seen[key]; n == nil {
			n = &noise{since: now}
			s.seen[key] = n
		}
	}
	if now.Sub(n.since) >= noiseWindow {
		n.since, n.passed = now, 0
	}
	if n.passed >= noiseBurst {
		n.suppressed++
		return false, 0
	}
	n.passed++
	suppressed, n.suppressed = n.suppressed, 0
	return true, suppressed
}

// forget drops what was quiet for a window.
func (s *noiseState) forget(now time.Time) {
	for key, n := range s.seen {
		if now.Sub(n.since) >= noiseWindow {
			delete(s.seen, key)
		}
	}
}
