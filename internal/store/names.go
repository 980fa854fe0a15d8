package store

import (
	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// validIdentityName refuses what could be taken for an id or for "self".
func validIdentityName(name string) error { return validName("identity", name, api.TargetSelf) }

// validContactName refuses also what has a meaning in a grant.
func validContactName(name string) error {
	return validName("contact", name, api.TargetSelf, api.WhoContacts, api.WhoAnyone)
}

func validName(what, name string, reserved ...string) error {
	if err := api.ValidName("the "+what+"'s name", name); err != nil {
		return err
	}
	for _, r := range reserved {
		if name == r {
			return api.Errorf(api.CodeBadRequest, "%q cannot be the name of a %s: it has a meaning of its own", name, what).
				WithHint("choose another name")
		}
	}
	if _, err := identity.ParseID(name); err == nil {
		return api.Errorf(api.CodeBadRequest, "%q cannot be the name of a %s: it is an id", name, what).
			WithHint("choose another name")
	}
	return nil
}
