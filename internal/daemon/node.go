package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastn-stack/fastnd/internal/access"
	"github.com/fastn-stack/fastnd/internal/builtin"
	"github.com/fastn-stack/fastnd/internal/config"
	"github.com/fastn-stack/fastnd/internal/daemon/verbs"
	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/keystore"
	"github.com/fastn-stack/fastnd/internal/p2p"
	"github.com/fastn-stack/fastnd/internal/remote"
	"github.com/fastn-stack/fastnd/internal/roster"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

// node is everything that needs the keys: it exists unless the daemon is locked.
type node struct {
	d        *Daemon
	keystore *keystore.Keystore
	store    *store.Store
	roster   *roster.Roster
	router   *router.Router
	remote   *remote.Remote
	host     *p2p.Host
	book     *book
	reach    *reach
	mail     *mail
	verbs    *verbs.Verbs
	folder   os.FileInfo // the one it was started in

	refused     atomic.Uint64 // opens of strangers and of the blocked, since the start
	losses      losses
	keyProblems atomic.Pointer[[]keyProblem] // replaced by each reload
	// ready is closed when host and remote know each other: peers can be there
	// before p2p.New has returned.
	ready   chan struct{}
	closing chan struct{} // closed when Close begins
	keeping sync.Mutex    // of keepAddresses
	closers []func() error
}

// keyProblem is a refused identity key in the folder of uid; id is zero if it
// cannot be told.
type keyProblem struct {
	uid uint32
	id  identity.ID
	api.Problem
}

// newNode opens the keystore and the store, and listens. On an error all that
// was opened is closed again.
func newNode(ctx context.Context, d *Daemon) (_ *node, err error) {
	n := &node{d: d, ready: make(chan struct{}), closing: make(chan struct{}), losses: losses{wake: make(chan struct{}, 1)}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	key, err := n.openKeys()
	if err != nil {
		return nil, err
	}
	if n.folder, err = os.Stat(d.place.dir); err != nil {
		return nil, err
	}
	_ = os.RemoveAll(filepath.Join(d.place.dir, verbs.Snapshots)) // left by a crash; the next backup says what is wrong with it
	existed := n.isThere(store.File)
	if err := n.openStore(ctx); err != nil {
		return nil, err
	}
	entries, err := n.readEntries()
	if err != nil {
		return nil, err
	}
	if err := n.noteLosses(ctx, existed, key, entries); err != nil {
		return nil, err
	}
	// Made only now: what its loss means is on the disk.
	if key, err = n.keystore.NodeKey(); err != nil {
		return nil, err
	}
	if err := n.store.SetMeta(ctx, nodeKey, key.ID().String()); err != nil {
		return nil, err
	}
	cfg := d.config
	n.roster = roster.New(key.ID(), entries, n.keystore, names{n.store}, cfg.Identity.DelegationTTL.Std(), d.o.clock())
	n.book, n.reach = newBook(n), newReach(n)
	n.remote = remote.New(remote.Parts{
		Node: key.ID(), Delegator: n.roster, Book: n.book, Gate: (*gate)(n),
		Verifier: identity.NewVerifier(n.store), Now: d.o.clock(),
		Known: n.store.NodeTrusted, OnSkew: n.skewed,
	})
	handlers := builtin.Handlers()
	n.router = router.New(router.Parts{Residence: n.roster, Access: (*gate)(n), Budget: (*gate)(n), Builtin: handlers, Remote: n.remote})
	if err := n.openMail(ctx); err != nil {
		return nil, err
	}
	n.store.OnChange(n.changed)
	if err := n.listen(ctx, key); err != nil {
		return nil, err
	}
	n.verbs = &verbs.Verbs{Roster: n.roster, Store: n.store, Host: n.host, Router: n.router, Remote: n.remote,
		Budgets: d.budgets, Events: d.hub, Messages: n.mail.store, Courier: n.mail.courier, Now: d.o.clock(),
		Dir: d.place.dir, Version: d.o.Version}
	n.startMail()
	n.goOn(n.rememberLosses)
	for name := range handlers {
		n.verbs.Builtin = append(n.verbs.Builtin, name)
	}
	return n, nil
}

// openKeys opens the keystore and reads the node's key; it makes none, and gives a zero
// one if there is no such file.
func (n *node) openKeys() (identity.Key, error) {
	var err error
	n.keystore, err = keystore.Open(filepath.Join(n.d.place.dir, "keystore"), uint32(os.Geteuid()))
	if err != nil {
		return identity.Key{}, err
	}
	n.closers = append(n.closers, n.keystore.Close)
	if _, err := n.keystore.List(); err != nil {
		return identity.Key{}, err
	}
	key, err := n.keystore.StoredNodeKey()
	if errors.Is(err, fs.ErrNotExist) {
		return identity.Key{}, nil
	}
	return key, err
}

// readEntries lists the keystore's identities; refused keys are told, each
// takes only its own identity offline.
func (n *node) readEntries() ([]roster.Entry, error) {
	found, err := n.keystore.List()
	if err != nil {
		return nil, err
	}
	problems := []keyProblem{}
	entries := make([]roster.Entry, 0, len(found))
	for _, e := range found {
		entry := roster.Entry{UID: e.UID, ID: e.ID, Key: e.Key, Refused: e.Err}
		if e.Err != nil {
			_, p := n.d.whyLocked(e.Err)
			entry.Fix = p.Fix
			problems = append(problems, keyProblem{e.UID, e.ID, p})
			n.d.log.Error("an identity is offline: its key is refused", systemd.MsgKeystoreLocked.Attr(), "problem", p.Text, "fix", p.Fix)
		}
		entries = append(entries, entry)
	}
	for _, e := range n.missingKeys(entries) {
		n.d.log.Error("an identity is offline: its key is missing", systemd.MsgKeystoreLocked.Attr(), "problem", e.Refused.Error(), "fix", e.Fix)
		entries = append(entries, e)
	}
	n.keyProblems.Store(&problems)
	return entries, nil
}

// otherProblems are refused keys that do not show in uid's identities: its own
// that are no identity's, and for administrators those of others.
func (n *node) otherProblems(uid uint32, admin bool) []api.Problem {
	var out []api.Problem
	for _, p := range *n.keyProblems.Load() {
		owner, here := n.roster.Owner(p.id)
		shown := here && owner == uid
		if p.uid == uid && !shown || p.uid != uid && admin {
			out = append(out, p.Problem)
		}
	}
	return out
}

func (n *node) openStore(ctx context.Context) error {
	var err error
	if n.store, err = store.Open(ctx, n.d.place.dir, &n.d.opening); err != nil {
		return &startError{systemd.MsgStoreDamaged, err}
	}
	n.store.OnRecovery(n.repaired)
	n.closers = append(n.closers, n.store.Close)
	return nil
}

// goOn runs work until the node closes.
func (n *node) goOn(work func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { work(ctx) })
	n.closers = append(n.closers, func() error {
		cancel()
		wg.Wait()
		return nil
	})
}

// memoryShare is what of the control group's limit Go may use: the rest is for
// the kernel's buffers, which count too.
const memoryShare = 0.9

func (n *node) listen(ctx context.Context, key identity.Key) error {
	cfg := n.d.config
	o := p2p.Options{
		Key: key, Port: cfg.P2P.Port, Listen: cfg.P2P.Listen, QUIC: cfg.P2P.QUIC, TCP: cfg.P2P.TCP,
		Announce:       cfg.P2P.Announce,
		StalledStreams: cfg.Budgets.StalledStreams,
		WindowInitial:  int64(cfg.Budgets.StreamWindowInitial), WindowMax: int64(cfg.Budgets.StreamWindowMax),
		MaxConnections: cfg.Budgets.NodeConnections,
		Trusted:        n.store.NodeTrusted,
		Book:           n.book, OnEvent: n.peerEvent, OnAddresses: n.addressesChanged, Log: n.d.log,
	}
	if limit, ok := systemd.CgroupMemoryLimit(); ok {
		o.MemoryLimit = limit
		debug.SetMemoryLimit(int64(float64(limit) * memoryShare))
	}
	var err error
	if o.StaticPeers, err = staticPeers(cfg); err != nil {
		return err
	}
	host, err := n.newHost(o)
	if err != nil {
		return &startError{systemd.MsgPortUnavailable, err}
	}
	n.host = host
	n.closers = append(n.closers, host.Close)
	n.remote.Connect(host, n.route)
	close(n.ready)
	if cfg.P2P.Port == 0 {
		if err := n.keepPort(ctx); err != nil {
			return err
		}
	}
	n.reach.resume()
	n.goOn(n.reach.work)
	return n.keepAddresses(ctx)
}

func staticPeers(cfg config.Config) (map[identity.ID][]string, error) {
	out := make(map[identity.ID][]string)
	for _, p := range cfg.P2P.StaticPeers {
		id, err := identity.ParseID(p.ID)
		if err != nil {
			return nil, fmt.Errorf("p2p.static_peers: %w", err)
		}
		out[id] = append(out[id], p.Addresses...)
	}
	return out, nil
}

// skewed is told of each frame that fails for the clocks; the log is limited by
// its attribute.
func (n *node) skewed(node identity.ID, theirs time.Time) {
	n.d.log.Warn("the clocks of this machine and a peer's disagree", systemd.MsgClockSkew.Attr(), systemd.PeerKey, node.String(),
		"theirs", theirs.UTC().Format(time.RFC3339))
}

// route is for what peers ask.
func (n *node) route(ctx context.Context, r *router.Request) (json.RawMessage, error) {
	data, err := n.router.Route(ctx, r)
	if err != nil {
		n.d.log.Debug("a peer's request failed", "peer", r.Node.String(), "trace", r.Trace, "from", r.From.String(), "to", r.To.String(),
			"protocol", r.Protocol, "kind", r.Kind.String(), "error", err)
	}
	return data, err
}

func (n *node) announce(log *slog.Logger) {
	log.Info("serving", "node", n.host.Node().String(), "addresses", n.host.Addrs(), "ports", n.host.Ports(), "identities", len(n.roster.All()))
}

// reload puts in force what the keystore holds now, and what of cfg needs no restart,
// and tells in r what it did beside the configuration. An error of the disk may come
// after that.
func (n *node) reload(ctx context.Context, cfg config.Config, r *api.ReloadResult) error {
	static, err := staticPeers(cfg)
	if err != nil {
		return err
	}
	var before []roster.Resident
	err = n.roster.Reload(func() ([]roster.Entry, error) {
		entries, err := n.readEntries()
		if err != nil {
			return nil, err
		}
		before = n.roster.All()
		return entries, n.host.Reconfigure(cfg.P2P.Announce, static)
	})
	if err != nil {
		return err
	}
	n.roster.SetTTL(cfg.Identity.DelegationTTL.Std())
	served := make(map[string]bool)
	for _, p := range before {
		served[p.ID.String()] = p.Online
		if _, online := n.roster.Here(p.ID); p.Online && !online {
			n.router.Recheck(p.ID, identity.ID{}, true)
		}
	}
	r.Online = n.cameOnline(served)
	r.Acknowledged, err = n.forgetLosses(ctx)
	return err
}

// cameOnline are the identities that are online and were not served before.
func (n *node) cameOnline(served map[string]bool) (out []api.Identity) {
	asked := make(map[uint32]bool)
	for _, p := range n.roster.All() {
		if asked[p.UID] {
			continue
		}
		asked[p.UID] = true
		for _, i := range n.verbs.Identities(p.UID, n.d.names.get(p.UID)) {
			if i.Online && !served[i.ID52] {
				out = append(out, i)
			}
		}
	}
	return out
}

// nodeKeyProblems tell what the next start will find in the place of the key that the
// node runs with.
func (n *node) nodeKeyProblems() []api.Problem {
	file := api.ShellQuote(filepath.Join(n.d.place.dir, "keystore", "node.key"))
	key, err := n.keystore.StoredNodeKey()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []api.Problem{{Text: "the key of this node is missing, " + file + ": the next start makes another, and contacts find this machine again only once it has called them",
			Fix: "put it back from a backup, then: " + n.d.reloadCommand()}}
	case err != nil:
		_, p := n.d.whyLocked(err)
		p.Text = "the next start will be locked: " + p.Text
		return []api.Problem{p}
	case key.ID() != n.host.Node():
		return []api.Problem{{Text: fmt.Sprintf("%s is the key of node %s; this daemon goes on as node %s until it is restarted", file, key.ID().Short(), n.host.Node().Short()),
			Fix: "restart it: " + n.d.restartCommand()}}
	}
	return nil
}

// Close ends the node, the last opened first.
func (n *node) Close() error {
	close(n.closing)
	var errs []error
	for _, c := range slices.Backward(n.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

func limits(b config.Budgets) access.Limits {
	return access.Limits{
		PerUIDConnections: b.PerUIDConnections, PerUIDRequests: b.PerUIDRequests, PerUIDStreams: b.PerUIDStreams,
		PerUIDBytes: int(b.PerUIDBufferedBytes), NodeBytes: int(b.NodeBufferedBytes),
		PerPeerRequests: b.PerPeerRequests, PerPeerStreams: b.PerPeerStreams,
		PerPeerRefusedOpens: b.PerPeerRefusedOpens, PerNodeRefusedOpens: b.PerNodeRefusedOpens,
		PerAddressRefusedOpens: b.PerAddressRefusedOpens, NodeConnections: b.NodeConnections,
	}
}
