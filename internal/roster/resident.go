package roster

import (
	"strings"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// Resident is one identity of this node.
type Resident struct {
	ID      identity.ID
	UID     uint32
	Name    string
	Online  bool  // served now
	Refused error // its key was refused: it is offline until that is mended
	Fix     string

	wanted     bool // what its owner chose; with a refused key it is offline all the same
	key        identity.Key
	delegation *identity.Delegation
}

// Usable returns an error if p's key was refused.
func (p *Resident) Usable() error {
	if p.Refused == nil {
		return nil
	}
	return locked("the key of identity "+p.Name+" is refused", p.Refused, p.Fix)
}

func locked(what string, why error, fix string) error {
	e := api.Errorf(api.CodeLocked, "%s: %v", what, why)
	if fix != "" {
		e = e.WithHint("as root: %s", fix)
	}
	return e
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
