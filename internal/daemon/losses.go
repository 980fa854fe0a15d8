package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/messages"
	"github.com/fastn-stack/fastnd/internal/roster"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	// nodeKey is where the store keeps which node it belongs to.
	nodeKey = "node"
	// mailKey is where it keeps that there is a database of messages.
	mailKey = "messages"
	// lossKey is where it keeps what was found missing, a line each, until a
	// reload: somebody must have seen it.
	lossKey = "losses"
	// asideKey is where it keeps up to which messages that were set aside a reload
	// acknowledged.
	asideKey = "aside"
	// lossesKept bounds these lines: the first, and the newest of the others.
	lossesKept = 8
)

// losses are what is to be told until somebody acknowledged it.
type losses struct {
	writing sync.Mutex // held while the store is brought up to date
	wake    chan struct{}

	mu     sync.Mutex
	lines  []string
	unkept bool           // the store does not have these lines yet
	untold []func() error // to be called once it has
}

// take gives what is to be brought to the store.
func (l *losses) take() (lines []string, told []func() error, unkept bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	told, unkept = l.untold, l.unkept
	l.untold, l.unkept = nil, false
	return slices.Clone(l.lines), told, unkept
}

// giveBack undoes take.
func (l *losses) giveBack(told []func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.untold, l.unkept = append(told, l.untold...), true
}

// isThere tells whether there is such a file in the daemon's folder.
func (n *node) isThere(file string) bool {
	_, err := os.Stat(filepath.Join(n.d.place.dir, file))
	return !errors.Is(err, fs.ErrNotExist)
}

// noteLosses compares what is there with what was: a store or key that is gone
// is made anew, or done without, but never silently.
// key is zero if there is none: it is made next.
func (n *node) noteLosses(ctx context.Context, existed bool, key identity.Key, entries []roster.Entry) error {
	const missing = "the store was missing: contacts, grants, blocks and the names of identities are gone; keys and messages are not affected"
	told := func() error { return n.store.Told(ctx) }
	kept, _ := n.store.Meta(lossKey)
	n.losses.lines = strings.FieldsFunc(kept, func(r rune) bool { return r == '\n' })
	switch r := n.store.Recovery(); {
	case r != nil && r.Missing && r.Tables == nil:
		n.lost(missing, "", told)
	case r != nil:
		n.lost(tellStore(r), r.Cause, told)
	case !existed && len(entries) > 0:
		n.lost(missing, "", nil)
	}
	if was, ok := n.store.Meta(nodeKey); ok && key.IsZero() {
		n.lost(keyLoss(was)+", another was made: contacts find this machine again only once it has called them", "", nil)
	}
	if !key.IsZero() { // it may have been put back
		n.found(keyLoss(key.ID().String()))
	}
	return n.keepLosses(ctx)
}

// keyLoss begins the line that tells of a node's key that was missing.
func keyLoss(node string) string { return "the key of node " + node[:8] + " was missing" }

// found forgets what was lost and is there again.
func (n *node) found(begins string) {
	n.losses.mu.Lock()
	defer n.losses.mu.Unlock()
	had := len(n.losses.lines)
	n.losses.lines = slices.DeleteFunc(n.losses.lines, func(line string) bool { return strings.HasPrefix(line, begins) })
	n.losses.unkept = n.losses.unkept || len(n.losses.lines) < had
}

// noteLostMail is noteLosses for the messages.
func (n *node) noteLostMail(ctx context.Context, existed bool, store *messages.Store) error {
	const missing = "the messages were missing: those that waited to be sent and those that were received are gone"
	_, had := n.store.Meta(mailKey)
	switch r := store.Recovery(); {
	case r != nil && r.Missing && r.Tables == nil:
		n.lost(missing, "", store.Told)
	case r != nil:
		n.lost(tellMail("damaged", r), r.Cause, store.Told)
	case !existed && had:
		n.lost(missing, "", nil)
	}
	if err := n.keepLosses(ctx); err != nil {
		return err
	}
	return n.store.SetMeta(ctx, mailKey, "1")
}

// lost notes a loss, or a repair that cost nothing, in one line. It does not wait for
// the disk; told is called once the store has it, and may be nil.
func (n *node) lost(text, cause string, told func() error) {
	n.d.log.Error("something on the disk was missing or damaged", systemd.MsgStoreDamaged.Attr(), "problem", text, "cause", cause)
	n.losses.mu.Lock()
	n.losses.lines, n.losses.unkept = addLoss(n.losses.lines, text), true
	if told != nil {
		n.losses.untold = append(n.losses.untold, told)
	}
	n.losses.mu.Unlock()
	select {
	case n.losses.wake <- struct{}{}:
	default:
	}
}

// keepLosses brings what was noted to the store.
func (n *node) keepLosses(ctx context.Context) error {
	n.losses.writing.Lock()
	defer n.losses.writing.Unlock()
	lines, told, unkept := n.losses.take()
	if !unkept {
		return nil
	}
	if err := n.store.SetMeta(ctx, lossKey, strings.Join(lines, "\n")); err != nil {
		n.losses.giveBack(told)
		return err
	}
	for _, fn := range told {
		if err := fn(); err != nil {
			n.d.log.Error("what was told of a repair will be told again", "error", err)
		}
	}
	return nil
}

// rememberLosses keeps what is noted while the node runs; a last time when ctx
// ends.
func (n *node) rememberLosses(ctx context.Context) {
	retry := time.NewTicker(n.d.o.retryDisk())
	defer retry.Stop()
	tick := retry.C
	for ctx.Err() == nil {
		select {
		case <-n.losses.wake:
		case <-tick:
		case <-ctx.Done():
		}
		// Not ctx: it ends before the store does.
		err := n.keepLosses(context.WithoutCancel(ctx))
		if tick = nil; err != nil {
			tick = retry.C // in memory until then
		}
	}
}

// asideText begins the part of a loss that differs each time.
const asideText = "; what it was is in "

// timesText is what is put behind a loss that came several times.
var timesText = regexp.MustCompile(` \(([0-9]+) times\)$`)

// addLoss adds a line. One that tells the same as an earlier one takes its place,
// and of many those in the middle are forgotten.
func addLoss(lines []string, text string) []string {
	kind := func(line string) string {
		line, _, _ = strings.Cut(timesText.ReplaceAllString(line, ""), asideText)
		return line
	}
	i := slices.IndexFunc(lines, func(line string) bool { return kind(line) == kind(text) })
	if i >= 0 {
		times := 1
		if m := timesText.FindStringSubmatch(lines[i]); m != nil {
			times, _ = strconv.Atoi(m[1])
		}
		lines[i] = fmt.Sprintf("%s (%d times)", text, times+1)
		return lines
	}
	if lines = append(lines, text); len(lines) > lossesKept {
		lines = slices.Delete(lines, 1, 1+len(lines)-lossesKept)
	}
	return lines
}

// lossProblems are those that were noted and not acknowledged.
func (n *node) lossProblems() []api.Problem {
	n.losses.mu.Lock()
	lines := slices.Clone(n.losses.lines)
	n.losses.mu.Unlock()
	var out []api.Problem
	for _, text := range lines {
		fix := "restore a backup, or go on without and acknowledge it: "
		if strings.Contains(text, "was lost") { // nothing was
			fix = "look at the disk's health, and acknowledge it: "
		}
		if strings.Contains(text, removedStore) {
			fix = "acknowledge it: "
		}
		if strings.Contains(text, "another was made") {
			fix = "put the key back, " + api.ShellQuote(filepath.Join(n.d.place.dir, "keystore", "node.key")) +
				", and restart the daemon, or go on with the new one and acknowledge it: "
		}
		out = append(out, api.Problem{Text: text, Fix: fix + n.d.reloadCommand()})
	}
	return out
}

// forgetLosses is done by a reload. It gives the lines that are not told any more.
func (n *node) forgetLosses(ctx context.Context) ([]string, error) {
	var aside, last int64
	if n.mail != nil {
		// In this order: one that comes in between is told once more, not never.
		last, aside = n.mail.store.AsideLast(), n.mail.store.AsideCount()
	}
	if aside > 0 {
		if err := n.store.SetMeta(ctx, asideKey, strconv.FormatInt(last, 10)); err != nil {
			return nil, err
		}
	}
	n.losses.mu.Lock()
	gone := n.losses.lines
	n.losses.lines, n.losses.unkept = nil, true
	n.losses.mu.Unlock()
	if err := n.keepLosses(ctx); err != nil { // nobody is told of them now
		n.losses.mu.Lock()
		n.losses.lines = append(gone, n.losses.lines...)
		n.losses.mu.Unlock()
		return nil, err
	}
	if aside > 0 {
		n.mail.store.AsideSeen(last)
		gone = append(gone, asideLine(aside))
	}
	return gone, nil
}

// asideSeen gives up to which messages that were set aside were acknowledged.
func (n *node) asideSeen() int64 {
	kept, _ := n.store.Meta(asideKey)
	last, _ := strconv.ParseInt(kept, 10, 64) // none: none were
	return last
}

// tellStore says what became of a damaged store, in one line.
func tellStore(r *sqlite.Recovery) string {
	how := "was damaged and repaired"
	if onlyLog(r) {
		how = "was found without its last changes"
	}
	text := "the store " + how + ", and nothing of contacts or grants was lost"
	if lost := lostRows(r, tableNames()); lost != "" {
		text = "the store " + how + ", lost are " + lost
	}
	return text + "; keys are not affected" + leftOf(r)
}

// tellMail does so of messages.
func tellMail(how string, r *sqlite.Recovery) string {
	how += " and repaired"
	if onlyLog(r) {
		how = "found without their last changes"
	}
	text := "the messages were " + how + ", and no message was lost by that; those that were changed are counted apart"
	if lost := lostRows(r, map[string]string{"outbox": "sent messages", "inbox": "received messages"}); lost != "" {
		text = "the messages were " + how + ", lost are " + lost
		if slices.ContainsFunc(r.Tables, func(t sqlite.TableRecovery) bool { return t.Lost && t.Missing > 0 }) {
			text += " (with those that were delivered or removed before)"
		}
	}
	return text + leftOf(r)
}

// onlyLog tells that the end of the log is all that went: there was nothing to repair.
func onlyLog(r *sqlite.Recovery) bool { return r.LogLost && r.MovedTo == "" && r.Tables == nil }

// lostRows counts what was lost, in the users' words for the tables.
func lostRows(r *sqlite.Recovery, names map[string]string) string {
	var lost []string
	for _, t := range r.Tables {
		switch what, ok := names[t.Name]; {
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
	if r.LogLost {
		lost = append(lost, "an unknown number of the last changes, perhaps none")
	}
	return strings.Join(lost, ", ")
}

// leftOf says where the damaged file is, and why it was called that.
func leftOf(r *sqlite.Recovery) (text string) {
	if r.MovedTo != "" {
		text = asideText + r.MovedTo
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

// removedStore is told where somebody removed the store's file below the daemon.
const removedStore = "the file of the store was removed while in use and made anew, nothing was lost"

// repaired is told of damage that a running store mended from memory.
func (n *node) repaired(r *sqlite.Recovery) {
	text := "the store was damaged while in use and made anew, nothing was lost"
	if r.Missing {
		text = removedStore
	}
	if r.MovedTo != "" {
		text += asideText + r.MovedTo
	}
	n.lost(text, r.Cause, nil)
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
