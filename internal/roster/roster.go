// Package roster knows the identities that live on this node: whose they are,
// whether they are served, and the delegation with which each lets this node
// speak for it.
package roster

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

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

// Resident is one identity of this node.
type Resident struct {
	ID      identity.ID
	UID     uint32
	Name    string
	Online  bool
	Refused error // its key was refused: it is offline until that is mended
	Fix     string

	key        identity.Key
	delegation *identity.Delegation
}

// Roster is safe for concurrent use.
type Roster struct {
	node  identity.ID
	ttl   time.Duration
	now   func() time.Time
	keys  Keys
	names Names

	// making serialises changes; mu guards the maps for readers.
	making sync.Mutex
	mu     sync.RWMutex
	byID   map[identity.ID]*Resident
}

// New returns the roster of node's identities. entries are what the keystore
// holds; ttl is how long a delegation counts, renewed at half of it.
func New(node identity.ID, entries []Entry, keys Keys, names Names, ttl time.Duration, now func() time.Time) *Roster {
	r := &Roster{node: node, ttl: ttl, now: now, keys: keys, names: names}
	r.Load(entries)
	return r
}

// Load replaces what the roster holds by entries, as after a reload.
func (r *Roster) Load(entries []Entry) {
	r.making.Lock()
	defer r.making.Unlock()
	byID := make(map[identity.ID]*Resident, len(entries))
	for _, e := range entries {
		if e.ID.IsZero() {
			continue
		}
		name, online, ok := r.names.Identity(e.ID)
		if !ok {
			// The store was lost, not the key: the id's prefix serves as a name.
			name, online = e.ID.Short(), true
		}
		byID[e.ID] = &Resident{ID: e.ID, UID: e.UID, Name: name,
			Online: online && e.Refused == nil, Refused: e.Refused, Fix: e.Fix, key: e.Key}
	}
	r.mu.Lock()
	r.byID = byID
	r.mu.Unlock()
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
	return Resident{}, api.Errorf(api.CodeNotFound, "you have no identity %q", shorten(nameOrID)).
		WithHint("see yours with: fastn id list")
}

// Default returns the identity that speaks for uid when none is named: the one
// named after user, else the only one. The first is made here.
func (r *Roster) Default(ctx context.Context, uid uint32, user string) (Resident, error) {
	name := nameFor(user)
	if p, ok, err := r.pick(uid, name); ok || err != nil {
		return p, err
	}
	r.making.Lock()
	defer r.making.Unlock()
	if p, ok, err := r.pick(uid, name); ok || err != nil {
		return p, err
	}
	key, err := r.keys.Create(uid)
	if err != nil {
		return Resident{}, err
	}
	return r.enter(ctx, uid, name, key)
}

func (r *Roster) pick(uid uint32, name string) (p Resident, ok bool, err error) {
	all := r.List(uid)
	if len(all) == 0 {
		return Resident{}, false, nil
	}
	i := slices.IndexFunc(all, func(p Resident) bool { return p.Name == name })
	if i < 0 && len(all) == 1 {
		i = 0
	}
	if i < 0 {
		return Resident{}, false, api.Errorf(api.CodeBadRequest, "you have %d identities and none is named %s", len(all), name).
			WithHint("choose one: fastn --as %s …", all[0].Name)
	}
	return all[i], true, nil
}

// Usable returns an error if p's key was refused.
func (p *Resident) Usable() error {
	if p.Refused == nil {
		return nil
	}
	e := api.Errorf(api.CodeLocked, "the key of identity %s is refused: %v", p.Name, p.Refused)
	if p.Fix != "" {
		e = e.WithHint("as root: %s", p.Fix)
	}
	return e
}

// Create makes a new identity of uid.
func (r *Roster) Create(ctx context.Context, uid uint32, name string) (Resident, error) {
	r.making.Lock()
	defer r.making.Unlock()
	if err := r.free(uid, name); err != nil {
		return Resident{}, err
	}
	key, err := r.keys.Create(uid)
	if err != nil {
		return Resident{}, err
	}
	return r.enter(ctx, uid, name, key)
}

// Import takes over a key that was made elsewhere. A key that lives on this
// node already is a conflict; whose it is is not told.
func (r *Roster) Import(ctx context.Context, uid uint32, name string, key identity.Key) (Resident, error) {
	r.making.Lock()
	defer r.making.Unlock()
	if err := r.free(uid, name); err != nil {
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
	return r.update(ctx, p, func(p *Resident) { p.Online = online })
}

// Remove deletes an identity, its key first: what is left without it is swept.
func (r *Roster) Remove(ctx context.Context, p Resident) error {
	r.making.Lock()
	defer r.making.Unlock()
	if err := r.keys.Remove(p.UID, p.ID); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.byID, p.ID)
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

// Delegation returns the delegation of id to this node that is in force,
// issuing a new one after half of the old one's life.
func (r *Roster) Delegation(id identity.ID) (*identity.Delegation, error) {
	now := r.now()
	r.mu.RLock()
	p, ok := r.byID[id]
	var d *identity.Delegation
	if ok {
		d = p.delegation
	}
	r.mu.RUnlock()
	if !ok {
		return nil, api.Errorf(api.CodeNotFound, "no such identity")
	}
	if d != nil && !now.Before(d.Issued) && now.Before(d.Issued.Add(r.ttl/2)) {
		return d, nil
	}
	if err := p.Usable(); err != nil {
		return nil, err
	}
	d, err := identity.Delegate(p.key, r.node, now, r.ttl)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	p.delegation = d
	r.mu.Unlock()
	return d, nil
}

func (r *Roster) free(uid uint32, name string) error {
	if err := api.ValidName("the identity's name", name); err != nil {
		return err
	}
	if _, err := identity.ParseID(name); err == nil || name == api.TargetSelf {
		return api.Errorf(api.CodeBadRequest, "an identity cannot be named %q", shorten(name))
	}
	for _, p := range r.List(uid) {
		if p.Name == name {
			return api.Errorf(api.CodeConflict, "you have an identity named %s already", name).
				WithHint("see yours with: fastn id list")
		}
	}
	return nil
}

// enter adds a key that is on disk; r.making is held.
func (r *Roster) enter(ctx context.Context, uid uint32, name string, key identity.Key) (Resident, error) {
	p := &Resident{ID: key.ID(), UID: uid, Name: name, Online: true, key: key}
	if err := r.names.SetIdentity(ctx, p.ID, uid, name, true); err != nil {
		return Resident{}, err
	}
	r.mu.Lock()
	r.byID[p.ID] = p
	r.mu.Unlock()
	return *p, nil
}

// update changes the resident that p is a copy of; r.making is held.
func (r *Roster) update(ctx context.Context, p Resident, change func(*Resident)) (Resident, error) {
	r.mu.RLock()
	live, ok := r.byID[p.ID]
	r.mu.RUnlock()
	if !ok {
		return Resident{}, api.Errorf(api.CodeNotFound, "you have no identity %q", p.Name)
	}
	next := *live
	change(&next)
	if err := r.names.SetIdentity(ctx, next.ID, next.UID, next.Name, next.Online); err != nil {
		return Resident{}, err
	}
	r.mu.Lock()
	live.Name, live.Online = next.Name, next.Online
	r.mu.Unlock()
	return next, nil
}

// nameFor makes an identity's name of a user's name, which may hold anything
// where a directory service made it.
func nameFor(user string) string {
	var b strings.Builder
	for _, c := range user {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			b.Len() > 0 && (c == '-' || c == '_' || c == '.')
		if !ok {
			c = 'x'
		}
		if b.WriteRune(c); b.Len() == api.MaxName {
			break
		}
	}
	name := b.String()
	if _, err := identity.ParseID(name); err == nil || name == "" || name == api.TargetSelf {
		return "user-" + name[:min(len(name), 8)]
	}
	return name
}

func shorten(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
