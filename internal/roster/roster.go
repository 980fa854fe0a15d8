// Package roster knows the identities that live on this node: whose they are,
// whether they are served, and the delegation with which each lets this node
// speak for it.
package roster

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// maxIdentities is the budget of a uid. It is far above what a person has, and
// bounds what one user costs the others: each has a key file, and a place in
// memory. There is no setting for it.
const maxIdentities = 64

// Keys keeps private keys on disk; a key is durable when a call returns.
type Keys interface {
	Create(uid uint32) (identity.Key, error)
	Add(uid uint32, key identity.Key) error
	Remove(uid uint32, id identity.ID) error
}

// Names keeps what is not in the keystore. Losing it loses no identity.
type Names interface {
	// Identity returns what was kept of id; ok is false if nothing was.
	Identity(id identity.ID) (name string, online, ok bool)
	SetIdentity(ctx context.Context, id identity.ID, uid uint32, name string, online bool) error
	// RemoveIdentity forgets id with its contacts, grants and invitations.
	RemoveIdentity(ctx context.Context, id identity.ID) error
	// LongestInvite tells when the last of id's tickets that can still be used
	// ends; the zero time if there is none.
	LongestInvite(id identity.ID) time.Time
}

// Entry is a key found in the keystore. With Refused set there is no Key, and
// ID is zero if not even that could be told.
type Entry struct {
	UID     uint32
	ID      identity.ID
	Key     identity.Key
	Refused error
	Fix     string // a command that mends it, if there is one
}

// Roster is safe for concurrent use.
type Roster struct {
	node  identity.ID
	ttl   atomic.Int64 // a time.Duration
	now   func() time.Time
	keys  Keys
	names Names

	// making serialises changes; mu guards the maps for readers.
	making sync.Mutex
	mu     sync.RWMutex
	byID   map[identity.ID]*Resident
	lost   map[uint32]Entry // by uid, a refused entry that is no resident
	// defaults are what Default found since the last change of the others.
	defaults map[userName]*Resident
	changes  uint64
}

// New returns the roster of node's identities. entries are what the keystore
// holds; ttl is how long a delegation counts, renewed at half of it.
func New(node identity.ID, entries []Entry, keys Keys, names Names, ttl time.Duration, now func() time.Time) *Roster {
	r := &Roster{node: node, now: now, keys: keys, names: names, defaults: make(map[userName]*Resident)}
	r.SetTTL(ttl)
	r.Load(entries)
	return r
}

// Load replaces what the roster holds by entries.
func (r *Roster) Load(entries []Entry) {
	r.making.Lock()
	defer r.making.Unlock()
	r.load(entries)
}

// Reload is Load of what read finds. No identity is made or removed meanwhile:
// one that is made after reading would be forgotten, and its user given another.
func (r *Roster) Reload(read func() ([]Entry, error)) error {
	r.making.Lock()
	defer r.making.Unlock()
	entries, err := read()
	if err != nil {
		return err
	}
	r.load(entries)
	return nil
}

// load does it; r.making is held.
func (r *Roster) load(entries []Entry) {
	byID := make(map[identity.ID]*Resident, len(entries))
	lost := make(map[uint32]Entry)
	taken := make(map[userName]bool, len(entries))
	for _, e := range entries {
		if e.ID.IsZero() || byID[e.ID] != nil {
			lost[e.UID] = e
			continue
		}
		p := r.resident(e)
		if taken[userName{p.UID, p.Name}] {
			p.Name = e.ID.Short() // its key came from another uid's folder
		}
		taken[userName{p.UID, p.Name}] = true
		byID[e.ID] = p
	}
	r.mu.Lock()
	r.byID, r.lost = byID, lost
	r.changed()
	r.mu.Unlock()
}

type userName struct {
	uid  uint32
	name string
}

func (r *Roster) resident(e Entry) *Resident {
	name, wanted, ok := r.names.Identity(e.ID)
	if !ok {
		// The store was lost, not the key: the id's prefix serves as a name.
		name, wanted = e.ID.Short(), true
	}
	return &Resident{ID: e.ID, UID: e.UID, Name: name, Online: wanted && e.Refused == nil,
		Refused: e.Refused, Fix: e.Fix, wanted: wanted, key: e.Key}
}

// Here tells whether id lives on this node, and whether it is served.
func (r *Roster) Here(id identity.ID) (here, online bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p, ok := r.byID[id]
	return ok, ok && p.Online
}

// Owner returns the uid that owns id.
func (r *Roster) Owner(id identity.ID) (uid uint32, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p, ok := r.byID[id]
	if !ok {
		return 0, false
	}
	return p.UID, true
}

// List returns the identities of uid, sorted by name.
func (r *Roster) List(uid uint32) []Resident {
	r.mu.RLock()
	var out []Resident
	for _, p := range r.byID {
		if p.UID == uid {
			out = append(out, *p)
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(out, func(a, b Resident) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// All returns every identity of the node.
func (r *Roster) All() []Resident {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]Resident, 0, len(r.byID))
	for _, p := range r.byID {
		out = append(out, *p)
	}
	return out
}

// Find returns uid's identity of that name or id. One of another owner is
// not found, as one that does not exist.
func (r *Roster) Find(uid uint32, nameOrID string) (Resident, error) {
	id, idErr := identity.ParseID(nameOrID)
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, p := range r.byID {
		if p.UID == uid && (p.Name == nameOrID || idErr == nil && p.ID == id) {
			return *p, nil
		}
	}
	return Resident{}, api.Errorf(api.CodeNotFound, "you have no identity %q", api.Shorten(nameOrID)).
		WithHint(`"fastn id list" shows yours`)
}

// Create makes a new identity of uid. CodeConflict if it has one of that name,
// CodeBadRequest if it may not be a name, CodeOverBudget if it has too many.
func (r *Roster) Create(ctx context.Context, uid uint32, name string) (Resident, error) {
	r.making.Lock()
	defer r.making.Unlock()
	if err := r.room(uid, name); err != nil {
		return Resident{}, err
	}
	key, err := r.keys.Create(uid)
	if err != nil {
		return Resident{}, err
	}
	return r.enter(ctx, uid, name, key)
}

// Import is Create with a key that was made elsewhere. A key that lives on this
// node already is a conflict; whose it is is not told.
func (r *Roster) Import(ctx context.Context, uid uint32, name string, key identity.Key) (Resident, error) {
	r.making.Lock()
	defer r.making.Unlock()
	if err := r.room(uid, name); err != nil {
		return Resident{}, err
	}
	if here, _ := r.Here(key.ID()); here {
		return Resident{}, api.Errorf(api.CodeConflict, "this key is an identity of this machine already")
	}
	if err := r.keys.Add(uid, key); err != nil {
		return Resident{}, err
	}
	return r.enter(ctx, uid, name, key)
}

// Rename gives an identity of uid another name.
func (r *Roster) Rename(ctx context.Context, p Resident, to string) (Resident, error) {
	r.making.Lock()
	defer r.making.Unlock()
	if err := r.free(p.UID, to); err != nil {
		return Resident{}, err
	}
	return r.update(ctx, p, func(p *Resident) { p.Name = to })
}

// SetOnline starts or stops serving an identity.
func (r *Roster) SetOnline(ctx context.Context, p Resident, online bool) (Resident, error) {
	if online {
		if err := p.Usable(); err != nil {
			return Resident{}, err
		}
	}
	r.making.Lock()
	defer r.making.Unlock()
	return r.update(ctx, p, func(p *Resident) { p.wanted = online })
}

// Remove deletes an identity, its key first: what is left without it is swept.
func (r *Roster) Remove(ctx context.Context, p Resident) error {
	r.making.Lock()
	defer r.making.Unlock()
	// One whose key is missing already is removed all the same.
	if err := r.keys.Remove(p.UID, p.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.mu.Lock()
	delete(r.byID, p.ID)
	r.changed()
	r.mu.Unlock()
	return r.names.RemoveIdentity(ctx, p.ID)
}

// Key returns the private key of an identity, for export to its owner.
func (r *Roster) Key(id identity.ID) (identity.Key, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p, ok := r.byID[id]
	if !ok {
		return identity.Key{}, api.Errorf(api.CodeNotFound, "no such identity")
	}
	if err := p.Usable(); err != nil {
		return identity.Key{}, err
	}
	return p.key, nil
}

// snapshot returns a copy of id's resident, and that itself; nil if there is none.
func (r *Roster) snapshot(id identity.ID) (p Resident, live *Resident) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if live = r.byID[id]; live != nil {
		p = *live
	}
	return p, live
}

// room tells whether uid may have one more identity, of that name.
func (r *Roster) room(uid uint32, name string) error {
	if err := r.free(uid, name); err != nil {
		return err
	}
	if n := len(r.List(uid)); n >= maxIdentities {
		return api.Errorf(api.CodeOverBudget, "over budget: you have %d of %d identities", n, maxIdentities).
			WithHint(`remove one with "fastn id remove NAME"; "fastn id list" shows yours`)
	}
	return nil
}

func (r *Roster) free(uid uint32, name string) error {
	if err := api.ValidName("the identity's name", name); err != nil {
		return err
	}
	if _, err := identity.ParseID(name); err == nil || name == api.TargetSelf {
		return api.Errorf(api.CodeBadRequest, "an identity cannot be named %q", api.Shorten(name))
	}
	for _, p := range r.List(uid) {
		if p.Name == name {
			return api.Errorf(api.CodeConflict, "you have an identity named %s already", name).
				WithHint(`"fastn id list" shows yours`)
		}
	}
	return nil
}

// enter adds a key that is on disk; r.making is held. Once begun it is ended,
// though the caller went away: else each try would leave another key behind.
func (r *Roster) enter(ctx context.Context, uid uint32, name string, key identity.Key) (Resident, error) {
	ctx = context.WithoutCancel(ctx)
	p := &Resident{ID: key.ID(), UID: uid, Name: name, Online: true, wanted: true, key: key}
	if err := r.names.SetIdentity(ctx, p.ID, uid, name, true); err != nil {
		return Resident{}, errors.Join(err, r.keys.Remove(uid, p.ID))
	}
	made := *p // once it is listed others may change it
	r.mu.Lock()
	r.byID[p.ID] = p
	r.changed()
	r.mu.Unlock()
	return made, nil
}

// changed is called with r.mu held for writing.
func (r *Roster) changed() {
	r.changes++
	clear(r.defaults)
}

// update changes the resident that p is a copy of; r.making is held.
func (r *Roster) update(ctx context.Context, p Resident, change func(*Resident)) (Resident, error) {
	next, live := r.snapshot(p.ID)
	if live == nil {
		return Resident{}, api.Errorf(api.CodeNotFound, "you have no identity %q", p.Name)
	}
	change(&next)
	next.Online = next.wanted && next.Refused == nil
	if err := r.names.SetIdentity(ctx, next.ID, next.UID, next.Name, next.wanted); err != nil {
		return Resident{}, err
	}
	r.mu.Lock()
	live.Name, live.Online, live.wanted = next.Name, next.Online, next.wanted
	r.changed()
	r.mu.Unlock()
	return next, nil
}
