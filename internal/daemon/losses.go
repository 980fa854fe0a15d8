package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/roster"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// nodeKey is where the store keeps which node it belongs to.
	nodeKey = "node"
	// lossKey is where it keeps what starts found missing, a line each, until a
	// reload: somebody must have seen it.
	lossKey = "losses"
)

// storeExists tells whether there is a store to open, before one is made.
func (n *node) storeExists() bool {
	_, err := os.Stat(filepath.Join(n.d.place.dir, store.File))
	return !errors.Is(err, fs.ErrNotExist)
}

// noteLosses compares what is there with what was: a store or key that is gone
// is made anew, or done without, but never silently.
func (n *node) noteLosses(ctx context.Context, existed bool, key identity.ID, entries []roster.Entry) error {
	var found []string
	if r := n.store.Recovery(); r != nil {
		found = append(found, tellRecovery(r))
	}
	if !existed && len(entries) > 0 {
		found = append(found, "the store was missing: contacts, grants, blocks and the names of identities are gone")
	}
	if was, ok := n.store.Meta(nodeKey); ok && was != key.String() {
		found = append(found, "the key of node "+was[:8]+" was missing, another was made: contacts find this machine again only once it has called them")
	}
	for _, text := range found {
		n.d.log.Error("something was lost", systemd.MsgStoreDamaged.Attr(), "problem", text)
	}
	old, _ := n.store.Meta(lossKey)
	if len(found) > 0 {
		all := strings.TrimSpace(old + "\n" + strings.Join(found, "\n"))
		if err := n.store.SetMeta(ctx, lossKey, all); err != nil {
			return err
		}
	}
	return n.store.SetMeta(ctx, nodeKey, key.String())
}

// tellRecovery says what became of a damaged store, in one line.
func tellRecovery(r *sqlite.Recovery) string {
	var lost []string
	for _, t := range r.Tables {
		switch what, ok := tableNames()[t.Name]; {
		case !ok || !t.Lost:
		case t.Missing > 0:
			lost = append(lost, fmt.Sprintf("%d %s", t.Missing, what))
		default:
			lost = append(lost, "an unknown number of "+what)
		}
	}
	if r.Commits > 0 {
		lost = append(lost, fmt.Sprintf("at least %d of the last changes", r.Commits))
	}
	text := "the store was damaged and repaired, and nothing of contacts or grants was lost"
	if len(lost) > 0 {
		text = "the store was damaged and repaired, lost are " + strings.Join(lost, ", ")
	}
	text += "; keys are not affected"
	if r.MovedTo != "" {
		text += "; what it was is in " + r.MovedTo
	}
	if r.Cause != "" {
		text += " (" + strings.Join(strings.Fields(r.Cause), " ") + ")"
	}
	return text
}

// tableNames are the tables that users know of, in their words.
func tableNames() map[string]string {
	return map[string]string{"identities": "names of identities", "contacts": "contacts", "blocks": "blocks", "grants": "grants",
		"invites": "tickets", "hints": "addresses given for contacts"}
}

// repaired is told of damage that a running store mended from memory.
func (n *node) repaired(r *sqlite.Recovery) {
	text := "the store was damaged while in use and made anew, nothing was lost; what it was is in " + r.MovedTo
	n.d.log.Error("the store was repaired", systemd.MsgStoreDamaged.Attr(), "problem", text, "cause", r.Cause)
	n.damage.Store(&api.Problem{Text: text, Fix: "check the disk, and acknowledge it: " + n.d.reloadCommand()})
}

// losses are the problems that noteLosses found.
func (n *node) losses() []api.Problem {
	kept, _ := n.store.Meta(lossKey)
	var out []api.Problem
	if p := n.damage.Load(); p != nil {
		out = append(out, *p)
	}
	for text := range strings.Lines(kept) {
		out = append(out, api.Problem{Text: strings.TrimSpace(text),
			Fix: "restore a backup, or go on without and acknowledge it: " + n.d.reloadCommand()})
	}
	return out
}

// forgetLosses is done by a reload.
func (n *node) forgetLosses(ctx context.Context) error {
	n.damage.Store(nil)
	return n.store.SetMeta(ctx, lossKey, "")
}

// missingKeys are identities that the store knows and the keystore does not. Of a
// user whose folder is refused it cannot be told whether any is missing.
func (n *node) missingKeys(entries []roster.Entry) []roster.Entry {
	here := make(map[identity.ID]bool, len(entries))
	unread := make(map[uint32]bool)
	for _, e := range entries {
		here[e.ID] = true
		unread[e.UID] = unread[e.UID] || e.ID.IsZero()
	}
	var out []roster.Entry
	for _, i := range n.store.AllIdentities() {
		if !here[i.ID] && !unread[i.UID] {
			path := filepath.Join(n.d.place.dir, "keystore", "identities", fmt.Sprint(i.UID), i.ID.String()+".key")
			out = append(out, roster.Entry{UID: i.UID, ID: i.ID, Refused: fmt.Errorf("its key file %s is missing", path),
				Fix: "restore it from a backup, then: " + n.d.reloadCommand()})
		}
	}
	return out
}
