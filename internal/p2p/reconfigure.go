package p2p

import (
	"maps"

	"github.com/fastn-stack/fastnd/internal/identity"

	ma "github.com/multiformats/go-multiaddr"
)

// told is what the configuration says and a reload may change.
type told struct {
	announce []ma.Multiaddr
	static   map[identity.ID][]string
}

const staticTag = "static"

// Reconfigure replaces Options.Announce and StaticPeers. Connected peers learn
// of other addresses within seconds, by Identify. With an error nothing changes.
func (h *Host) Reconfigure(announce []string, static map[identity.ID][]string) error {
	addrs, err := parseAnnounce(announce, h.node)
	if err != nil {
		return err
	}
	next := &told{announce: addrs, static: maps.Clone(static)}
	old := h.told.Swap(next)
	for id := range next.static {
		h.Protect(id, staticTag)
	}
	if old == nil {
		return nil
	}
	for id := range old.static {
		if _, ok := next.static[id]; !ok {
			h.Unprotect(id, staticTag)
		}
	}
	return nil
}
