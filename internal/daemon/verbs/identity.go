package verbs

import (
	"slices"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/keystore"
	"github.com/fastn-stack/fastnd/internal/roster"
	"github.com/fastn-stack/fastnd/service/api"
)

// Identities lists those of one user, as identity.list and daemon.status tell them.
func (v *Verbs) Identities(uid uint32, user string) []api.Identity {
	all := v.Roster.List(uid)
	out := make([]api.Identity, 0, len(all))
	for _, p := range all {
		out = append(out, v.identity(p, user))
	}
	return out
}

func (v *Verbs) identity(p roster.Resident, owner string) api.Identity {
	out := api.Identity{Name: p.Name, ID52: p.ID.String(), Owner: owner, Online: p.Online, Protocols: []string{}}
	if p.Online {
		out.Protocols = append(slices.Clone(v.Builtin), v.Router.Listening(p.ID)...)
		slices.Sort(out.Protocols)
		out.Protocols = slices.Compact(out.Protocols)
	}
	if p.Refused != nil {
		out.Problem, out.Fix = p.Refused.Error(), p.Fix
	}
	return out
}

func (v *Verbs) identityList(c call) (any, error) {
	all := v.Identities(c.caller.UID, c.caller.User)
	if len(all) == 0 { // to look makes none, but keys that are refused are told
		if _, _, err := v.Roster.Known(c.caller.UID, c.caller.User); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (v *Verbs) identityNew(c call, a api.NameArgs) (any, error) {
	p, err := v.Roster.Create(c.ctx, c.caller.UID, a.Name)
	if err != nil {
		return nil, err
	}
	return v.identity(p, c.caller.User), nil
}

// find is the identity that a verb about one names; the request's `from` and
// the default serve when it names none.
func (v *Verbs) find(c call, a api.IdentityArgs) (roster.Resident, error) {
	if a.Identity == "" {
		return v.own(c)
	}
	return v.Roster.Find(c.caller.UID, a.Identity)
}

func (v *Verbs) identityShow(c call, a api.IdentityArgs) (any, error) {
	p, err := v.find(c, a)
	if err != nil {
		return nil, err
	}
	return v.identity(p, c.caller.User), nil
}

func (v *Verbs) identityRename(c call, a api.RenameArgs) (any, error) {
	p, err := v.Roster.Find(c.caller.UID, a.Name)
	if err != nil {
		return nil, err
	}
	if p, err = v.Roster.Rename(c.ctx, p, a.To); err != nil {
		return nil, err
	}
	return v.identity(p, c.caller.User), nil
}

// identityExport writes the key to the descriptor that came with the request:
// it never stands in JSON.
func (v *Verbs) identityExport(c call, a api.IdentityArgs) (any, error) {
	p, err := v.find(c, a)
	if err != nil {
		return nil, err
	}
	key, err := v.Roster.Key(p.ID)
	if err != nil {
		return nil, err
	}
	if err := onlyOwn(c.file, c.caller.UID, "key"); err != nil {
		return nil, err
	}
	if _, err := c.file.Write(keystore.EncodePEM(key)); err != nil {
		return nil, api.Errorf(api.CodeInternal, "write the key to the descriptor: %v", err)
	}
	if err := c.file.Sync(); err != nil {
		return nil, api.Errorf(api.CodeInternal, "write the key to the disk: %v", err)
	}
	return v.identity(p, c.caller.User), nil
}

func (v *Verbs) identityImport(c call, a api.NameArgs) (any, error) {
	if err := readable(c.file); err != nil {
		return nil, err
	}
	key, err := keystore.ParsePrivate(c.file)
	if err != nil {
		return nil, api.Errorf(api.CodeBadRequest, "import: %v", err).
			WithHint(`a key is PKCS#8 PEM, as "fastn id export" writes it, or the hex .private-key of the Rust fastn-p2p`)
	}
	p, err := v.Roster.Import(c.ctx, c.caller.UID, a.Name, key)
	if err != nil {
		return nil, err
	}
	return v.identity(p, c.caller.User), nil
}

func (v *Verbs) identityRemove(c call, a api.IdentityArgs) (any, error) {
	if a.Identity == "" {
		return nil, api.Errorf(api.CodeBadRequest, `"identity" is missing`)
	}
	p, err := v.Roster.Find(c.caller.UID, a.Identity)
	if err != nil {
		return nil, err
	}
	if err := v.Roster.Remove(c.ctx, p); err != nil {
		return nil, err
	}
	v.Events.Publish(api.Event{Kind: api.EventIdentityChanged, Identity: p.ID.String(),
		Text: "identity " + p.Name + " was removed"}, c.caller.UID)
	return nil, nil
}

func (v *Verbs) identityOnline(online bool) func(call, api.IdentityArgs) (any, error) {
	return func(c call, a api.IdentityArgs) (any, error) {
		p, err := v.find(c, a)
		if err != nil {
			return nil, err
		}
		if p, err = v.Roster.SetOnline(c.ctx, p, online); err != nil {
			return nil, err
		}
		if !online {
			// The store told of the change before the roster had made it.
			v.Router.Recheck(p.ID, identity.ID{}, false)
		}
		return v.identity(p, c.caller.User), nil
	}
}
