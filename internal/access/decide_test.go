package access

import (
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/identity"
	"github.com/fastn-stack/fastnd/service/api"
)

var (
	owner = identity.ID{1}
	other = identity.ID{2}
)

// rules is what the owner decided about other.
type rules struct {
	contact, blocked                bool
	toContact, toContacts, toAnyone bool
	protocol, instance              string // that the grants are of
	wrongOwner, wrongWho            bool   // set when asked about somebody else
}

func (r *rules) check(o, who identity.ID) {
	r.wrongOwner = r.wrongOwner || o != owner
	r.wrongWho = r.wrongWho || who != other
}

func (r *rules) Contact(o, who identity.ID) (string, bool) {
	r.check(o, who)
	if r.contact {
		return "bob", true
	}
	return "", false
}

func (r *rules) Blocked(o, who identity.ID) bool { r.check(o, who); return r.blocked }

func (r *rules) Granted(o, who identity.ID, protocol, instance string) (string, bool) {
	r.check(o, who)
	switch {
	case protocol != r.protocol || instance != r.instance:
		return "", false
	case r.toContact:
		return "contact", true
	case r.toContacts && r.contact:
		return "contacts", true
	case r.toAnyone:
		return "anyone", true
	}
	return "", false
}

func (r *rules) GrantedAny(o, who identity.ID) bool {
	r.check(o, who)
	return r.toContact || r.toContacts && r.contact || r.toAnyone
}

// expected states the policy again, as a list of sentences: the first that holds
// decides.
func expected(r *rules, byDefault bool) (allowed bool, rule string) {
	for _, sentence := range []struct {
		holds   bool
		allowed bool
		rule    string
	}{
		{r.blocked, false, "block"},
		{r.toContact, true, "grant"},
		{r.toContacts && r.contact, true, "contacts"},
		{byDefault && r.contact, true, "contact default"},
		{r.toAnyone, true, "anyone"},
		{true, false, "default deny"},
	} {
		if sentence.holds {
			return sentence.allowed, sentence.rule
		}
	}
	panic("unreachable")
}

// The grid of all combinations: protocol and instance × contact × block × grants.
func TestDecideGrid(t *testing.T) {
	defaults := map[string]bool{
		"Ping": true, "Echo": true, "Text": true, "FileTransfer": true,
		"Shell": false, "chat/v1": false, "echo": false, "": false,
	}
	for protocol, isDefault := range defaults {
		for _, instance := range []string{"default", "work"} {
			for bits := range 1 << 5 {
				r := &rules{
					contact: bits&1 != 0, blocked: bits&2 != 0,
					toContact: bits&4 != 0, toContacts: bits&8 != 0, toAnyone: bits&16 != 0,
					protocol: protocol, instance: instance,
				}
				allowed, rule := expected(r, isDefault && instance == "default")
				d := Decide(r, owner, other, protocol, instance)
				if d.Allowed != allowed || d.Rule != rule {
					t.Errorf("%q %q %+v: got %v by %q, want %v by %q", protocol, instance, *r, d.Allowed, d.Rule, allowed, rule)
				}
				if Allowed(r, owner, other, protocol, instance) != allowed {
					t.Errorf("%q %q %+v: Allowed differs from Decide", protocol, instance, *r)
				}
				if instance == "default" && Decide(r, owner, other, protocol, "") != d {
					t.Errorf("%q %+v: an empty instance is not the default one", protocol, *r)
				}
				if r.wrongOwner || r.wrongWho {
					t.Errorf("%+v: the rules of somebody else were asked", *r)
				}
				whois := !r.blocked && (r.contact || r.toContact || r.toAnyone)
				if MayWhois(r, owner, other) != whois {
					t.Errorf("%+v: MayWhois is %v", *r, !whois)
				}
			}
		}
	}
}

// A grant of one protocol and instance says nothing of others.
func TestGrantsAreNarrow(t *testing.T) {
	for _, g := range []rules{{toContact: true, contact: true}, {toContacts: true, contact: true}, {toAnyone: true}} {
		g.protocol, g.instance = "Shell", "work"
		for _, ask := range [][2]string{{"Shell", "default"}, {"Shell", "other"}, {"shell", "work"}, {"Shel", "work"}} {
			if d := Decide(&g, owner, other, ask[0], ask[1]); d.Allowed {
				t.Errorf("%v is allowed by %q", ask, d.Rule)
			}
		}
		if d := Decide(&g, owner, other, "Shell", "work"); !d.Allowed {
			t.Errorf("the grant itself: %+v", d)
		}
	}
}

func TestOwner(t *testing.T) {
	// A block of oneself cannot be made; were there one, it would not count.
	r := &rules{blocked: true}
	if d := Decide(r, owner, owner, "Shell", "work"); !d.Allowed || d.Rule != RuleOwner {
		t.Errorf("got %+v", d)
	}
	if !MayWhois(r, owner, owner) {
		t.Error("MayWhois refuses the owner")
	}
}

func TestDetailIsPlainWords(t *testing.T) {
	short := other.Short()
	for _, tt := range []struct {
		rules    rules
		protocol string
		instance string
		want     string
	}{
		{rules{contact: true}, api.ProtocolEcho, "", "bob is a contact; contacts may use Echo by default"},
		{rules{contact: true, toContact: true}, "P", "I", "bob was granted P (instance I)"},
		{rules{contact: true, toContacts: true}, "P", "I", "bob is a contact; P (instance I) was granted to all contacts"},
		{rules{toAnyone: true}, "P", "I", "P (instance I) was granted to anyone"},
		{rules{contact: true, blocked: true}, "P", "I", "bob is blocked, which wins over every grant"},
		{rules{blocked: true}, "P", "I", short + " is blocked, which wins over every grant"},
		{rules{contact: true}, "Shell", "", "bob is a contact, but Shell was not granted to bob, contacts or anyone"},
		{rules{}, "Echo", "", short + " is not a contact, and Echo was not granted to anyone"},
	} {
		tt.rules.protocol, tt.rules.instance = tt.protocol, tt.instance
		d := Decide(&tt.rules, owner, other, tt.protocol, tt.instance)
		if d.Detail != tt.want {
			t.Errorf("got %q, want %q", d.Detail, tt.want)
		}
		if strings.HasSuffix(d.Detail, ".") {
			t.Errorf("%q ends with a full stop", d.Detail)
		}
	}
}

func BenchmarkAllowed(b *testing.B) {
	r := &rules{contact: true}
	b.ReportAllocs()
	for b.Loop() {
		if !Allowed(r, owner, other, "Echo", "default") {
			b.Fatal("refused")
		}
	}
}
