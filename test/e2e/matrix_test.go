package e2e

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// object is something with a name and an id that requests can speak of.
type object struct{ name, id string }

// nobody's id: the key of no identity, in the form of one. It is a point of the
// curve's prime-order subgroup, as ids must be (RFC 8032, test vector 1).
const nobodysID = "qtd9g0c2m45bflabvr9sip07787e2snjraj269df08d6hto7a4d0"

// variant is one way in which a verb speaks of an object.
type variant struct {
	what string
	q    question
}

// variants returns, for a verb, every way to speak of the identity and the
// contact given. ok is false for a verb that this table does not know.
func variants(v api.Verb, identity, contact object) (list []variant, ok bool) {
	args := func(what string, data any) {
		q := verb(v.Name, data)
		if v.Files > 0 {
			q.File = "/tmp/probe-descriptor"
		}
		list = append(list, variant{what, q})
	}
	identities := func(data func(string) any) {
		args("identity name", data(identity.name))
		args("identity id", data(identity.id))
	}
	contacts := func(data func(string) any) {
		args("contact name", data(contact.name))
		args("contact id", data(contact.id))
	}
	neutral := any(struct{}{}) // arguments for the variants with `from`
	switch v.Name {
	case api.VerbIdentityList, api.VerbContactList, api.VerbGrantList, api.VerbOutboxList, api.VerbInboxList:
	case api.VerbIdentityNew, api.VerbIdentityImport:
		args("name", api.NameArgs{Name: identity.name})
		neutral = api.NameArgs{Name: "fresh"}
	case api.VerbIdentityShow, api.VerbIdentityExport, api.VerbIdentityOnline, api.VerbIdentityOffline, api.VerbIdentityRemove:
		identities(func(s string) any { return api.IdentityArgs{Identity: s} })
		neutral = api.IdentityArgs{Identity: "nothing"}
	case api.VerbIdentityRename:
		identities(func(s string) any { return api.RenameArgs{Name: s, To: "stolen"} })
		neutral = api.RenameArgs{Name: "nothing", To: "stolen"}
	case api.VerbContactInvite:
		args("for", api.InviteArgs{For: contact.name})
		neutral = api.InviteArgs{}
	case api.VerbContactAdd:
		args("name", api.ContactAddArgs{Name: contact.name, ID: nobodysID})
		neutral = api.ContactAddArgs{Name: "fresh", ID: nobodysID}
	case api.VerbContactRename:
		contacts(func(s string) any { return api.RenameArgs{Name: s, To: "stolen"} })
		neutral = api.RenameArgs{Name: "nothing", To: "stolen"}
	case api.VerbContactRemove, api.VerbContactUnblock, api.VerbContactBlock:
		contacts(func(s string) any { return api.NameArgs{Name: s} })
		neutral = api.NameArgs{Name: "nothing"}
	case api.VerbGrantAdd, api.VerbGrantRemove, api.VerbAccessWhy:
		contacts(func(s string) any { return api.GrantArgs{Who: s, Protocol: "Notes"} })
		neutral = api.GrantArgs{Who: api.WhoContacts, Protocol: "Notes"}
	case api.VerbOutboxShow, api.VerbOutboxWait, api.VerbOutboxCancel, api.VerbOutboxRetry:
		args("message", api.OutboxArgs{MessageID: messageTo(contact)})
		neutral = api.OutboxArgs{MessageID: nobodysMessage}
	case api.VerbInboxShow, api.VerbInboxRead, api.VerbInboxRemove:
		args("message", api.InboxArgs{MessageID: messageTo(contact)})
		args("message of a sender", api.InboxArgs{MessageID: messageTo(contact), From: identity.id})
		neutral = api.InboxArgs{MessageID: nobodysMessage}
	case api.VerbPeerPing:
		// An id is a target for everybody; whether it may be reached is the
		// target's own decision, not one of ownership.
		args("contact name", api.TargetArgs{Target: contact.name})
		neutral = api.TargetArgs{Target: api.TargetSelf}
	default:
		return nil, false
	}
	for what, from := range map[string]string{"from name": identity.name, "from id": identity.id} {
		args(what, neutral)
		list[len(list)-1].q.Request.From = from
	}
	slices.SortFunc(list, func(a, b variant) int { return strings.Compare(a.what, b.what) })
	return list, true
}

const nobodysMessage = "123e4567-e89b-42d3-a456-426614174000"

// messageTo names a message by a contact; alice sends the one of hers, so that it
// lies in both her boxes.
func messageTo(contact object) string {
	return fmt.Sprintf("123e4567-e89b-42d3-a456-%012x", crc32.ChecksumIEEE([]byte(contact.name)))
}

// ownership generates, from the table of verbs, every way in which bob could
// speak of what is alice's, and compares each answer with the one he gets for
// something that does not exist.
func ownership(t *testing.T, m *nspawn.Machine) {
	work := get[api.Identity](t, m, "alice", api.VerbIdentityNew, api.NameArgs{Name: "atelier"})
	friend := get[api.Identity](t, m, "root", api.VerbIdentityNew, api.NameArgs{Name: "friend"})
	get[api.Contact](t, m, "alice", api.VerbContactAdd, api.ContactAddArgs{Name: "carl", ID: friend.ID52})
	get[api.Grant](t, m, "alice", api.VerbGrantAdd, api.GrantArgs{Who: "carl", Protocol: "Notes"})
	sent := ask(t, m, "alice", question{Request: api.Request{Type: api.TypeSend, Target: api.TargetSelf, Protocol: api.ProtocolText,
		MessageID: messageTo(object{"carl", friend.ID52}), Data: json.RawMessage(`{"text":"private"}`)}})[0]
	if err := sent.Err(); err != nil {
		t.Fatal(err)
	}
	get[api.OutboxMessage](t, m, "alice", api.VerbOutboxWait, api.OutboxArgs{MessageID: messageTo(object{"carl", friend.ID52})})
	before := belongings(t, m, "alice")
	for _, what := range []string{`"atelier"`, `"carl"`, `"Notes"`, `"private"`} {
		if !strings.Contains(before, what) {
			t.Fatalf("alice does not see her own %s: %s", what, before)
		}
	}

	hers := [2]object{{"atelier", work.ID52}, {"carl", friend.ID52}}
	missing := [2]object{{"ateleir", nobodysID}, {"calr", nobodysID}}
	asked := 0
	for _, v := range api.Verbs() {
		if !v.Owned {
			continue
		}
		theirs, ok := variants(v, hers[0], hers[1])
		if !ok {
			t.Errorf("the matrix does not know the verb %s", v.Name)
			continue
		}
		nothing, _ := variants(v, missing[0], missing[1])
		for i := range theirs {
			// Each time bob starts with nothing of his own.
			got := comparable(ask(t, m, "bob", theirs[i].q)[0], hers)
			clearAll(t, m, "bob", got)
			want := comparable(ask(t, m, "bob", nothing[i].q)[0], missing)
			clearAll(t, m, "bob", want)
			if got != want {
				t.Errorf("%s by %s: bob is told of alice's object\n%s\nand of a missing one\n%s", v.Name, theirs[i].what, got, want)
			}
			asked++
		}
	}
	t.Logf("%d pairs of requests", asked)

	for _, typ := range []string{api.TypeCall, api.TypeListen, api.TypeStream} {
		q := func(from string) question {
			return question{Request: api.Request{Type: typ, Target: target(typ), Protocol: "Echo", From: from, Data: echoData(typ)}}
		}
		for _, pair := range [][2]string{{hers[0].name, missing[0].name}, {hers[0].id, missing[0].id}} {
			a := ask(t, m, "bob", q(pair[0]), q(pair[1]))
			if got, want := comparable(a[0], hers), comparable(a[1], missing); got != want || a[0].Code == "" {
				t.Errorf("%s from %s: %s; from a missing identity: %s", typ, pair[0], got, want)
			}
		}
	}

	streamsOfOthers(t, m)

	for _, name := range []string{api.VerbIdentityList, api.VerbContactList, api.VerbGrantList, api.VerbPeerList, api.VerbDaemonStatus,
		api.VerbOutboxList, api.VerbInboxList} {
		a := ask(t, m, "bob", verb(name, struct{}{}))[0]
		for _, secret := range []string{work.ID52, friend.ID52, `"atelier"`, `"carl"`, `"Notes"`, `"private"`} {
			if strings.Contains(string(a.Data), secret) {
				t.Errorf("%s tells bob of %s: %s", name, secret, a.Data)
			}
		}
	}
	if after := belongings(t, m, "alice"); after != before {
		t.Errorf("alice had\n%s\nand has\n%s", before, after)
	}
	// The same words from alice herself must reach the objects, or all of the
	// above compared nothing with nothing.
	control(t, m, hers, missing)
}

// streamsOfOthers: the end of a stream is told to its owner only, to others as if
// there had been none.
func streamsOfOthers(t *testing.T, m *nspawn.Machine) {
	t.Helper()
	const hers, missing = "5f0c1d1e-8a3b-4c7e-9a53-0d5b0d1c6a01", "5f0c1d1e-8a3b-4c7e-9a53-0d5b0d1c6a02"
	open := question{Request: api.Request{Type: api.TypeStream, Target: api.TargetSelf, Protocol: "Echo", Stream: hers}}
	if a := ask(t, m, "alice", open)[0]; a.Status != api.StatusStreaming {
		t.Fatalf("alice's stream: %+v", a)
	}
	for _, typ := range []string{api.TypeStreamResult, api.TypeStreamReset} {
		q := func(stream string) question { return question{Request: api.Request{Type: typ, Stream: stream}} }
		a := ask(t, m, "bob", q(hers), q(missing))
		if got, want := comparable(a[0], [2]object{}), comparable(a[1], [2]object{}); got != want || a[0].Code != api.CodeNotFound {
			t.Errorf("%s: bob is told of alice's stream %s, and of a missing one %s", typ, got, want)
		}
	}
	if a := ask(t, m, "alice", question{Request: api.Request{Type: api.TypeStreamResult, Stream: hers}})[0]; a.Err() != nil {
		t.Errorf("alice is not told how her stream ended: %v", a.Err())
	}
}

// control checks that for alice, who owns the objects, the answers differ.
func control(t *testing.T, m *nspawn.Machine, hers, missing [2]object) {
	for _, v := range []string{api.VerbIdentityShow, api.VerbAccessWhy, api.VerbIdentityOffline, api.VerbIdentityOnline,
		api.VerbGrantRemove, api.VerbContactBlock, api.VerbContactUnblock, api.VerbContactRemove, api.VerbIdentityRemove} {
		theirs, _ := variants(api.Verb{Name: v}, hers[0], hers[1])
		nothing, _ := variants(api.Verb{Name: v}, missing[0], missing[1])
		for i := range theirs {
			if !strings.HasSuffix(theirs[i].what, " name") || theirs[i].what == "from name" {
				continue
			}
			a := ask(t, m, "alice", theirs[i].q, nothing[i].q)
			if a[0].Err() != nil || comparable(a[0], hers) == comparable(a[1], missing) {
				t.Errorf("%s by %s: alice is told %s", v, theirs[i].what, comparable(a[0], hers))
			}
		}
	}
}

func target(typ string) string {
	if typ == api.TypeListen {
		return ""
	}
	return api.TargetSelf
}

func echoData(typ string) json.RawMessage {
	if typ == api.TypeListen {
		return nil
	}
	return json.RawMessage(`{"message":"x"}`)
}

// belongings is what a user sees of the own objects.
func belongings(t *testing.T, m *nspawn.Machine, user string) string {
	t.Helper()
	var all []string
	for _, name := range []string{api.VerbIdentityList, api.VerbContactList, api.VerbGrantList, api.VerbOutboxList, api.VerbInboxList} {
		a := ask(t, m, user, verb(name, struct{}{}))[0]
		if err := a.Err(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// How far a list has read is no belonging: what became of a message counts
		// before it is recorded.
		all = append(all, anyCursor.ReplaceAllString(string(a.Data), ""))
	}
	return strings.Join(all, "\n")
}

// clearAll removes what a user made with the last request: contacts, grants, and
// all identities but the first. It need not look after a refusal.
func clearAll(t *testing.T, m *nspawn.Machine, user, answer string) {
	t.Helper()
	if strings.HasPrefix(answer, api.StatusError) {
		return
	}
	for _, c := range get[[]api.Contact](t, m, user, api.VerbContactList, struct{}{}) {
		ask(t, m, user, verb(api.VerbContactRemove, api.NameArgs{Name: c.Name}))
	}
	for _, g := range get[[]api.Grant](t, m, user, api.VerbGrantList, struct{}{}) {
		ask(t, m, user, verb(api.VerbGrantRemove, api.GrantArgs{Who: g.Who, Protocol: g.Protocol, Instance: g.Instance}))
	}
	for _, i := range get[[]api.Identity](t, m, user, api.VerbIdentityList, struct{}{}) {
		if i.Name != user {
			ask(t, m, user, verb(api.VerbIdentityRemove, api.IdentityArgs{Identity: i.ID52}))
		}
	}
	m.Must("rm", "-f", "/tmp/probe-descriptor")
}

var (
	anyUUID   = regexp.MustCompile(`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`)
	anyID     = regexp.MustCompile(`\b[0-9a-v]{52}\b`)
	anyTime   = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)`)
	anyCode   = regexp.MustCompile(`"ticket":"[^"]*"`)
	anyCursor = regexp.MustCompile(`"cursor":\d+`)
	anyRTT    = regexp.MustCompile(`"rtt_us":\d+`)
)

// comparable is an answer with everything taken out that must differ between
// two objects or two moments: names, ids, times, tickets.
func comparable(a api.Response, objects [2]object) string {
	s := fmt.Sprintf("%s %s %s %s", a.Status, a.Code, a.Data, a.Hint)
	for _, re := range []*regexp.Regexp{anyUUID, anyID, anyTime, anyCode, anyRTT} {
		s = re.ReplaceAllString(s, "…")
	}
	for _, o := range objects {
		if o.name == "" {
			continue
		}
		s = strings.ReplaceAll(s, o.name, "NAME")
		s = strings.ReplaceAll(s, o.id[:8], "…") // messages shorten ids
	}
	return s
}

func adminVerbs(t *testing.T, m *nspawn.Machine) {
	args := map[string]any{
		api.VerbDaemonReload:     struct{}{},
		api.VerbDaemonStop:       struct{}{},
		api.VerbDaemonDisconnect: api.UserArgs{User: "mallory"},
		api.VerbDaemonBackup:     nil, // with a file
	}
	m.Must("usermod", "--append", "--groups", "fastn-admin", "alice")
	pid := mainPID(m)
	for _, v := range api.Verbs() {
		if !v.Admin {
			continue
		}
		data, ok := args[v.Name]
		if !ok {
			t.Errorf("this test does not know the administrators' verb %s", v.Name)
			continue
		}
		if a := ask(t, m, "bob", verb(v.Name, data))[0]; a.Code != api.CodeNotPermitted {
			t.Errorf("%s by bob: %s %s", v.Name, a.Code, a.Data)
		}
		if v.Files > 0 {
			continue // a file of their own; see backupAndRestore
		}
		for _, admin := range []string{"alice", "root"} {
			a := ask(t, m, admin, verb(v.Name, data))[0]
			if v.Name == api.VerbDaemonStop {
				if a.Err() == nil || a.Code == api.CodeInternal || !strings.Contains(a.Hint, "systemctl stop") {
					t.Errorf("%s under systemd by %s: %+v", v.Name, admin, a)
				}
			} else if a.Err() != nil {
				t.Errorf("%s by %s: %v", v.Name, admin, a.Err())
			}
		}
	}
	if got := mainPID(m); got != pid {
		t.Error("the daemon was restarted")
	}
	m.Must("gpasswd", "--delete", "alice", "fastn-admin")
}

// A table that forgets to change something compares a thing with itself.
func TestVariantsDiffer(t *testing.T) {
	a, b := [2]object{{"n1", "i1"}, {"c1", "j1"}}, [2]object{{"n2", "i2"}, {"c2", "j2"}}
	for _, v := range api.Verbs() {
		if !v.Owned {
			continue
		}
		one, ok := variants(v, a[0], a[1])
		if !ok {
			t.Errorf("the matrix does not know the verb %s", v.Name)
		}
		two, _ := variants(v, b[0], b[1])
		for i := range one {
			if one[i].what != two[i].what || reflect.DeepEqual(one[i].q, two[i].q) {
				t.Errorf("%s by %s does not depend on the object", v.Name, one[i].what)
			}
		}
	}
}
