package verbs

import (
	"github.com/fastn-stack/fastnd/internal/access"
	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/internal/roster"
	"github.com/fastn-stack/fastnd/internal/store"
	"github.com/fastn-stack/fastnd/service/api"
)

func (v *Verbs) grantAdd(c call, a api.GrantArgs) (any, error) {
	own, who, err := v.grantWho(c, a)
	if err != nil {
		return nil, err
	}
	g, err := v.Store.AddGrant(c.ctx, own.ID, who, a.Protocol, api.Instance(a.Instance))
	if err != nil {
		return nil, err
	}
	return grant(g), nil
}

func (v *Verbs) grantRemove(c call, a api.GrantArgs) (any, error) {
	own, who, err := v.grantWho(c, a)
	if err != nil {
		return nil, err
	}
	return nil, v.Store.RemoveGrant(c.ctx, own.ID, who, a.Protocol, api.Instance(a.Instance))
}

func (v *Verbs) grantList(c call) (any, error) {
	out := []api.Grant{}
	own, ok, err := v.known(c)
	if !ok {
		return out, err
	}
	for _, g := range v.Store.Grants(own.ID) {
		out = append(out, grant(g))
	}
	return out, nil
}

func (v *Verbs) grantWho(c call, a api.GrantArgs) (roster.Resident, store.Who, error) {
	own, err := v.own(c)
	if err != nil {
		return own, store.Who{}, err
	}
	if err := api.ValidProtocol(a.Protocol); err != nil {
		return own, store.Who{}, err
	}
	switch a.Who {
	case "":
		return own, store.Who{}, api.Errorf(api.CodeBadRequest, `"who" is missing: a contact, "contacts" or "anyone"`)
	case api.WhoContacts:
		return own, store.WhoContacts(), nil
	case api.WhoAnyone:
		return own, store.WhoAnyone(), nil
	}
	id, err := v.contactID(own.ID, a.Who)
	if err != nil {
		return own, store.Who{}, err
	}
	return own, store.WhoContact(id), nil
}

func grant(g store.Grant) api.Grant {
	out := api.Grant{Identity: g.Owner.String(), Who: g.Name, Protocol: g.Protocol, Instance: g.Instance, Added: g.Added}
	if id, ok := g.Who.Contact(); ok {
		out.ID52 = id.String()
	} else {
		out.Who = g.Who.String()
	}
	return out
}

func (v *Verbs) accessWhy(c call, a api.GrantArgs) (any, error) {
	own, err := v.own(c)
	if err != nil {
		return nil, err
	}
	if err := api.ValidProtocol(a.Protocol); err != nil {
		return nil, err
	}
	a.Instance = api.Instance(a.Instance)
	out := api.Decision{Who: a.Who, Protocol: a.Protocol, Instance: a.Instance}
	var d access.Decision
	switch a.Who {
	case "":
		return nil, api.Errorf(api.CodeBadRequest, `"who" is missing: a contact, an id, "contacts" or "anyone"`)
	case api.WhoAnyone:
		d = access.Decide(v.Store, own.ID, identity.ID{}, a.Protocol, a.Instance)
	case api.WhoContacts:
		d = access.Decide(anyContact{v.Store}, own.ID, identity.ID{}, a.Protocol, a.Instance)
	default:
		id, err := v.Target(own.ID, a.Who)
		if err != nil {
			return nil, err
		}
		out.ID52 = id.String()
		d = access.Decide(v.Store, own.ID, id, a.Protocol, a.Instance)
	}
	out.Allowed, out.Rule, out.Detail = d.Allowed, d.Rule, d.Detail
	if d.Allowed && !own.Online {
		out.Allowed, out.Rule = false, "offline"
		out.Detail = "your identity " + own.Name + " is offline; otherwise: " + d.Detail
	}
	return out, nil
}

// anyContact answers for a contact of whom nothing else is known.
type anyContact struct{ *store.Store }

func (anyContact) Contact(_, _ identity.ID) (string, bool) { return "a contact", true }
func (anyContact) Blocked(_, _ identity.ID) bool           { return false }
func (a anyContact) Granted(owner, _ identity.ID, protocol, instance string) (by string, ok bool) {
	for _, g := range a.Grants(owner) {
		if _, one := g.Who.Contact(); one || g.Protocol != protocol || g.Instance != instance {
			continue
		}
		if by, ok = g.Who.String(), true; by == api.WhoContacts {
			break // the narrowest
		}
	}
	return by, ok
}
