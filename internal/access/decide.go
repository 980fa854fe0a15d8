// Package access decides who may use what, and how much of it at a time. It
// holds no rules itself and ends nothing: whoever asked does.
package access

import (
	"fmt"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

// Rules is what users decided about their identities. Calls are concurrent, and
// must not block: they are made for every request.
type Rules interface {
	// Contact tells the name that owner gave to who.
	Contact(owner, who identity.ID) (name string, ok bool)
	Blocked(owner, who identity.ID) bool
	// Granted tells whether a grant lets who use protocol and instance, and the
	// narrowest receiver of one: by is "contact", "contacts" or "anyone". Grants
	// to contacts count only for contacts.
	Granted(owner, who identity.ID, protocol, instance string) (by string, ok bool)
	// GrantedAny tells whether a grant of any protocol and instance applies to who.
	GrantedAny(owner, who identity.ID) bool
}

// The rules, in the order in which they are tried; `fastn access why` shows them.
const (
	RuleOwner          = "owner"           // an identity may use all of its own
	RuleBlock          = "block"           // wins over every grant
	RuleGrant          = "grant"           // to this contact by name
	RuleContacts       = "contacts"        // a grant to all contacts
	RuleContactDefault = "contact default" // what contacts may use without a grant
	RuleAnyone         = "anyone"          // a grant to anyone
	RuleDeny           = "default deny"
)

// Decision is an answer and the rule that gave it.
type Decision struct {
	Allowed bool
	Rule    string
	Detail  string // for the owner's eyes, never for a peer's
}

// Decide tells whether from may use protocol and instance of owner. An empty
// instance is the default one.
func Decide(r Rules, owner, from identity.ID, protocol, instance string) Decision {
	v := decide(r, owner, from, protocol, instance)
	return Decision{Allowed: v.allowed, Rule: v.rule, Detail: v.detail(from, protocol, instance)}
}

// Allowed is Decide without the words, for every request.
func Allowed(r Rules, owner, from identity.ID, protocol, instance string) bool {
	return decide(r, owner, from, protocol, instance).allowed
}

// MayWhois tells whether from may learn where owner lives: whoever may use any
// protocol of owner's may.
func MayWhois(r Rules, owner, from identity.ID) bool {
	if from == owner {
		return true
	}
	if r.Blocked(owner, from) {
		return false
	}
	_, contact := r.Contact(owner, from)
	return contact || r.GrantedAny(owner, from)
}

// byContact is what Rules.Granted says of a grant to one contact.
const byContact = "contact"

// contactDefault tells what every contact may use. Files are only offered: the
// receiver consents to each.
func contactDefault(protocol, instance string) bool {
	if instance != api.DefaultInstance {
		return false // somebody's own program under a known name
	}
	switch protocol {
	case api.ProtocolPing, api.ProtocolEcho, api.ProtocolText, api.ProtocolFileTransfer:
		return true
	}
	return false
}

type verdict struct {
	allowed bool
	rule    string
	name    string // of the contact; "" for strangers
}

func decide(r Rules, owner, from identity.ID, protocol, instance string) verdict {
	if from == owner {
		return verdict{allowed: true, rule: RuleOwner}
	}
	instance = api.Instance(instance)
	name, contact := r.Contact(owner, from)
	if r.Blocked(owner, from) {
		return verdict{rule: RuleBlock, name: name}
	}
	by, granted := r.Granted(owner, from, protocol, instance)
	switch {
	case granted && by == byContact:
		return verdict{true, RuleGrant, name}
	case granted && by == api.WhoContacts:
		return verdict{true, RuleContacts, name}
	case contact && contactDefault(protocol, instance):
		return verdict{true, RuleContactDefault, name}
	case granted && by == api.WhoAnyone:
		return verdict{true, RuleAnyone, name}
	}
	return verdict{rule: RuleDeny, name: name}
}

func (v verdict) detail(from identity.ID, protocol, instance string) string {
	what := api.ServiceName(protocol, instance)
	who := v.name
	if who == "" {
		who = from.Short()
	}
	switch v.rule {
	case RuleOwner:
		return "an identity may use all of its own protocols"
	case RuleBlock:
		return who + " is blocked, which wins over every grant"
	case RuleGrant:
		return fmt.Sprintf("%s was granted %s", who, what)
	case RuleContacts:
		return fmt.Sprintf("%s is a contact; %s was granted to all contacts", who, what)
	case RuleContactDefault:
		return fmt.Sprintf("%s is a contact; contacts may use %s by default", who, what)
	case RuleAnyone:
		return what + " was granted to anyone"
	}
	if v.name != "" {
		return fmt.Sprintf("%s is a contact, but %s was not granted to %s, contacts or anyone", who, what, who)
	}
	return fmt.Sprintf("%s is not a contact, and %s was not granted to anyone", who, what)
}
