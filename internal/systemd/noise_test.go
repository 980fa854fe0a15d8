package systemd

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestQuietPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(QuietPeers(slog.NewTextHandler(&out, nil)))
		lines := func() []string {
			defer out.Reset()
			return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		}
		for range 100 {
			log.Warn("refused", PeerKey, "a")
		}
		if n := len(lines()); n != noiseBurst {
			t.Errorf("%d records of a noisy peer", n)
		}
		// Other texts, other peers and what is not about a peer still pass.
		log.Warn("gone", PeerKey, "a")
		log.With(PeerKey, "b").Warn("refused")
		for range 100 {
			log.Warn("refused")
			log.WithGroup("x").Warn("refused", PeerKey, "a")
		}
		if n := len(lines()); n != 202 {
			t.Errorf("%d records, want 202", n)
		}
		for range 20 {
			log.With(PeerKey, "b").WithGroup("x").Warn("refused")
		}
		if n := len(lines()); n != noiseBurst-1 {
			t.Errorf("%d records of a peer named with With", n)
		}
		time.Sleep(noiseWindow)
		log.Warn("refused", PeerKey, "a")
		log.Warn("refused", PeerKey, "a")
		got := lines()
		if len(got) != 2 || !strings.Contains(got[0], "suppressed=90") || strings.Contains(got[1], "suppressed") {
			t.Errorf("after a while: %q", got)
		}
	})
}

// Peers without number share one limit, and memory stays bounded.
func TestQuietPeersIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		h := QuietPeers(slog.NewTextHandler(&out, nil)).(*quietHandler)
		log := slog.New(h)
		for i := range 2 * maxNoisy {
			log.Warn("refused", PeerKey, fmt.Sprint(i))
		}
		if n := strings.Count(out.String(), "\n"); n != maxNoisy+noiseBurst {
			t.Errorf("%d records passed, want %d", n, maxNoisy+noiseBurst)
		}
		if n := len(h.state.seen); n > maxNoisy+1 {
			t.Errorf("%d entries", n)
		}
		time.Sleep(noiseWindow)
		log.Warn("refused", PeerKey, "new")
		if n := len(h.state.seen); n != 1 {
			t.Errorf("%d entries are left after a quiet while", n)
		}
	})
}
