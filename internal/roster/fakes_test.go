package roster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

const (
	alice uint32 = 1000
	bob   uint32 = 1001
)

var errDisk = errors.New("disk full")

func newKey(t *testing.T) identity.Key {
	t.Helper()
	k, err := identity.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// disk is keystore and store at once: what a restart finds.
type disk struct {
	mu      sync.Mutex
	keys    map[identity.ID]Entry
	names   map[identity.ID]kept
	made    int                       // keys that Create made
	failing error                     // of SetIdentity
	longest map[identity.ID]time.Time // of the tickets that are out
}

type kept struct {
	uid    uint32
	name   string
	online bool
}

func newDisk() *disk {
	return &disk{keys: make(map[identity.ID]Entry), names: make(map[identity.ID]kept), longest: make(map[identity.ID]time.Time)}
}

func (d *disk) Create(uid uint32) (identity.Key, error) {
	k, err := identity.GenerateKey()
	if err != nil {
		return k, err
	}
	d.mu.Lock()
	d.made++
	d.mu.Unlock()
	return k, d.Add(uid, k)
}

func (d *disk) Add(uid uint32, key identity.Key) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys[key.ID()] = Entry{UID: uid, ID: key.ID(), Key: key}
	return nil
}

func (d *disk) Remove(uid uint32, id identity.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ok := d.keys[id]; !ok || e.UID != uid {
		return errors.New("no such key")
	}
	delete(d.keys, id)
	return nil
}

func (d *disk) Identity(id identity.ID) (name string, online, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := d.names[id]
	return k.name, k.online, ok
}

func (d *disk) SetIdentity(ctx context.Context, id identity.ID, uid uint32, name string, online bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := errors.Join(d.failing, ctx.Err()); err != nil {
		return err
	}
	d.names[id] = kept{uid, name, online}
	return nil
}

func (d *disk) RemoveIdentity(_ context.Context, id identity.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.names, id)
	return nil
}

func (d *disk) LongestInvite(id identity.ID) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.longest[id]
}

// refuse makes what is stored of id refused.
func (d *disk) refuse(id identity.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.keys[id]
	e.Key, e.Refused, e.Fix = identity.Key{}, errors.New("mode 0644"), "chmod 0600 the.key"
	d.keys[id] = e
}

func (d *disk) entries() []Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.keys))
}

// clock is a time that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var node = identity.ID{7}

const ttl = 7 * 24 * time.Hour

// start is what the daemon does at its start.
func start(d *disk) (*Roster, *clock) {
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	return New(node, d.entries(), d, d, ttl, c.Now), c
}

func create(t *testing.T, r *Roster, uid uint32, name string) Resident {
	t.Helper()
	p, err := r.Create(t.Context(), uid, name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantCode(t *testing.T, err error, want api.Code) {
	t.Helper()
	if api.CodeOf(err) != want {
		t.Errorf("got %q (%v), want %q", api.CodeOf(err), err, want)
	}
}

func names(list []Resident) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Name)
	}
	return out
}
