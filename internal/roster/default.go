package roster

import (
	"context"
	"slices"

	"github.com/fastn-stack/fastnd/service/api"
)

// Default returns the identity that speaks for uid when none is named: the one
// named after user, else the only one. The first is made here, unless uid has
// keys that were refused. The one returned may be refused: see Usable.
func (r *Roster) Default(ctx context.Context, uid uint32, user string) (Resident, error) {
	// Asked for every request: found again without a search.
	who := userName{uid, user}
	r.mu.RLock()
	changes := r.changes
	if live := r.defaults[who]; live != nil {
		found := *live
		r.mu.RUnlock()
		return found, nil
	}
	r.mu.RUnlock()
	p, err := r.first(ctx, uid, user)
	if err != nil {
		return Resident{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if live := r.byID[p.ID]; live != nil && r.changes == changes {
		r.defaults[who] = live
	}
	return p, nil
}

// Known is Default that makes nothing: ok is false for a user who has no identity
// so far. The error is that of Default.
func (r *Roster) Known(uid uint32, user string) (p Resident, ok bool, err error) {
	if p, ok, err = r.pick(uid, nameFor(user)); !ok && err == nil {
		err = r.none(uid)
	}
	return p, ok, err
}

// first is Default by a search, or by making the uid's first identity.
func (r *Roster) first(ctx context.Context, uid uint32, user string) (Resident, error) {
	name := nameFor(user)
	if p, ok, err := r.pick(uid, name); ok || err != nil {
		return p, err
	}
	r.making.Lock()
	defer r.making.Unlock()
	if p, ok, err := r.pick(uid, name); ok || err != nil {
		return p, err
	}
	if err := r.none(uid); err != nil {
		return Resident{}, err
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
			WithHint(`choose one with --as; for one command, as in "fastn --as %s id show", or for all with $FASTN_AS`, api.ShellQuote(all[0].Name))
	}
	return all[i], true, nil
}

// none returns an error if uid has keys, though none could be told apart: they
// are mended, not replaced.
func (r *Roster) none(uid uint32) error {
	r.mu.RLock()
	e, ok := r.lost[uid]
	r.mu.RUnlock()
	if !ok {
		return nil
	}
	return locked("your keys are refused", e.Refused, e.Fix)
}
