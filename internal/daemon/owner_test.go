package daemon

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/internal/ipc"
	"github.com/fastn-stack/fastnd/internal/keystore"
	"github.com/fastn-stack/fastnd/internal/p2p/p2ptest"
	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/internal/testutil"
	"github.com/fastn-stack/fastnd/service/api"
)

// Two users of one machine, of whom the daemon needs to know no more.
var (
	uid1001 = ipc.Caller{UID: 1001, GID: 1001, User: "ann"}
	uid1002 = ipc.Caller{UID: 1002, GID: 1002, User: "ben"}
)

// world is a daemon in which 1001 has one of everything, with names that 1002
// does not use; what is missing has names like them.
type world struct {
	*testDaemon
	id, contact string // of 1001: an identity, a contact's id
	noID        string // of nobody
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{testDaemon: start(t, opts{}), contact: p2ptest.Key(t).ID().String(), noID: p2ptest.Key(t).ID().String()}
	w.must(uid1001, "", api.VerbIdentityShow, nil)
	w.must(uid1002, "", api.VerbIdentityShow, nil)
	w.id = w.must(uid1001, "", api.VerbIdentityNew, api.NameArgs{Name: "hers"}).(api.Identity).ID52
	w.must(uid1001, "hers", api.VerbContactAdd, api.ContactAddArgs{Name: "herfriend", ID: w.contact})
	w.must(uid1001, "hers", api.VerbGrantAdd, api.GrantArgs{Who: "herfriend", Protocol: "theirs/1"})
	w.must(uid1001, "hers", api.VerbContactBlock, api.NameArgs{Name: w.noID})
	w.must(uid1001, "hers", api.VerbContactUnblock, api.NameArgs{Name: w.noID})
	for target, id := range map[string]string{"herfriend": messageOf["herfriend"], api.TargetSelf: messageOf["hers"]} {
		r := &api.Request{Type: api.TypeSend, From: "hers", Target: target, Protocol: api.ProtocolText, MessageID: id, Data: []byte(`{"text":"private"}`)}
		if _, err := (*backend)(w.Daemon).Verb(limited(t), uid1001, r, nil); err != nil {
			t.Fatal(full(err))
		}
	}
	w.must(uid1001, "hers", api.VerbOutboxWait, api.OutboxArgs{MessageID: messageOf["hers"]})
	return w
}

// messageOf are the messages of 1001, by the object that matrix names.
var messageOf = map[string]string{"hers": "123e4567-e89b-42d3-a456-426614174001", "herfriend": "123e4567-e89b-42d3-a456-426614174002"}

func (w *world) must(c ipc.Caller, from, name string, args any) any {
	w.t.Helper()
	v, err := w.from(c, from, name, args)
	if err != nil {
		w.t.Fatalf("%s as %s: %s", name, c.User, full(err))
	}
	return v
}

// key is a descriptor for verbs that take one: empty, or with a new key in it.
func (w *world) key(verb string) *os.File {
	var content []byte
	if verb == api.VerbIdentityImport {
		content = keystore.EncodePEM(p2ptest.Key(w.t))
	}
	path := newFile(w.t, content).Name()
	if err := os.Chown(path, int(uid1002.UID), -1); err != nil && os.Geteuid() == 0 {
		w.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0) // the verb's to close
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// ask does a verb as 1002, and gives all of the answer with what may differ
// (ids, times, tickets and the names in swap) taken out.
func (w *world) ask(v api.Verb, from string, args any, swap ...string) string {
	w.t.Helper()
	var files []*os.File
	if v.Files > 0 {
		files = append(files, w.key(v.Name))
	}
	data, err := w.from(uid1002, from, v.Name, args, files...)
	answer := map[string]any{"data": data}
	if err != nil {
		answer = map[string]any{"error": api.AsError(err)}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		w.t.Fatal(err)
	}
	s := string(text)
	for _, name := range swap {
		s = strings.ReplaceAll(s, name, "NAME")
	}
	return volatile.ReplaceAllString(s, "…")
}

var volatile = regexp.MustCompile(`\b[0-9a-v]{52}\b|\b123e4567-[0-9a-f-]{27}\b|\bfastn1[0-9a-v]+|\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)`)

// matrix tells for each owned verb the arguments that name one of 1001's
// objects, given that object's name; nil if the verb names none but by `from`.
var matrix = map[string]func(name, id string) []any{
	api.VerbIdentityList:   func(string, string) []any { return nil },
	api.VerbIdentityNew:    func(name, _ string) []any { return []any{api.NameArgs{Name: name}} },
	api.VerbIdentityImport: func(name, _ string) []any { return []any{api.NameArgs{Name: name + "2"}} },
	api.VerbIdentityShow:   byIdentity,
	api.VerbIdentityExport: byIdentity,
	api.VerbIdentityRemove: byIdentity,
	api.VerbIdentityOnline: byIdentity, api.VerbIdentityOffline: byIdentity,
	api.VerbIdentityRename: func(name, id string) []any {
		return []any{api.RenameArgs{Name: name, To: "other"}, api.RenameArgs{Name: id, To: "other"}}
	},
	api.VerbContactInvite: func(name, _ string) []any { return []any{nil, api.InviteArgs{For: name}} },
	api.VerbContactAdd: func(name, id string) []any {
		return []any{api.ContactAddArgs{Name: name, ID: id}}
	},
	api.VerbContactList: func(string, string) []any { return []any{nil} },
	api.VerbContactRename: func(name, id string) []any {
		return []any{api.RenameArgs{Name: name, To: "other"}, api.RenameArgs{Name: id, To: "other"}}
	},
	api.VerbContactRemove: byName, api.VerbContactBlock: byName, api.VerbContactUnblock: byName,
	api.VerbGrantAdd: byWho, api.VerbGrantRemove: byWho, api.VerbAccessWhy: byWho,
	api.VerbGrantList:  func(string, string) []any { return []any{nil} },
	api.VerbOutboxList: func(string, string) []any { return []any{nil, api.OutboxListArgs{All: true}} },
	api.VerbOutboxShow: byMessage, api.VerbOutboxWait: byMessage, api.VerbOutboxCancel: byMessage, api.VerbOutboxRetry: byMessage,
	api.VerbInboxList: func(string, string) []any { return []any{nil} },
	api.VerbInboxShow: byReceived, api.VerbInboxRead: byReceived, api.VerbInboxRemove: byReceived,
	// Whoever has an id may try to reach it, here as elsewhere: that is access's.
	api.VerbPeerPing: func(name, _ string) []any { return []any{api.TargetArgs{Target: name}} },
}

func byIdentity(name, id string) []any {
	return []any{api.IdentityArgs{Identity: name}, api.IdentityArgs{Identity: id}}
}

func byName(name, id string) []any {
	return []any{api.NameArgs{Name: name}, api.NameArgs{Name: id}}
}

// message is the one that goes with the object name, or one that nobody has.
func message(name string) string {
	if id, ok := messageOf[name]; ok {
		return id
	}
	return "123e4567-e89b-42d3-a456-426614174000"
}

func byMessage(name, _ string) []any { return []any{api.OutboxArgs{MessageID: message(name)}} }

func byReceived(name, id string) []any {
	return []any{api.InboxArgs{MessageID: message(name)}, api.InboxArgs{MessageID: message(name), From: name},
		api.InboxArgs{MessageID: message(name), From: id}}
}

func byWho(name, id string) []any {
	return []any{api.GrantArgs{Who: name, Protocol: "theirs/1"}, api.GrantArgs{Who: id, Protocol: "theirs/1"}}
}

// What 1001 owns does not exist for 1002: each answer about it is that about
// something missing, and 1001 sees no change.
func TestOwnershipMatrix(t *testing.T) {
	for _, v := range api.Verbs() {
		if !v.Owned {
			continue
		}
		args, ok := matrix[v.Name]
		if !ok {
			t.Errorf("the matrix does not know %s", v.Name)
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			testutil.LeakCheck(t)
			w := newWorld(t)
			before := w.herView()
			// Her identity as the one that speaks, by name and by id.
			for _, from := range [][2]string{{"hers", "none"}, {w.id, w.noID}} {
				foreign, missing := w.ask(v, from[0], nil, from[0]), w.ask(v, from[1], nil, from[1])
				wantSame(t, "from "+from[0], foreign, missing)
				if speaks(v.Name) && !strings.Contains(foreign, string(api.CodeNotFound)) {
					t.Errorf("from %s: %s", from[0], foreign)
				}
			}
			// Her objects by name and id, in answers of 1002's own identity.
			for _, object := range [][2]string{{"hers", w.id}, {"herfriend", w.contact}} {
				none, noID := "no"+object[0], p2ptest.Key(t).ID().String()
				foreign, missing := args(object[0], object[1]), args(none, noID)
				for i := range foreign {
					wantSame(t, object[0], w.ask(v, "", foreign[i], object[1], object[1][:8], object[0]),
						w.ask(v, "", missing[i], noID, noID[:8], none))
				}
			}
			if after := w.herView(); after != before {
				t.Errorf("1001 saw\n%s\nand now sees\n%s", before, after)
			}
		})
	}
}

// speaks tells verbs that act for the identity in `from`; the others are about
// one that their arguments name, and need none.
func speaks(verb string) bool {
	switch verb {
	case api.VerbIdentityList, api.VerbIdentityNew, api.VerbIdentityImport, api.VerbIdentityRename, api.VerbIdentityRemove:
		return false
	}
	return true
}

func wantSame(t testing.TB, what, foreign, missing string) {
	t.Helper()
	if foreign != missing {
		t.Errorf("%s: of another user's object 1002 is told\n%s\nof a missing one\n%s", what, foreign, missing)
	}
}

// herView is all that 1001 sees.
func (w *world) herView() string {
	w.t.Helper()
	view := []any{w.must(uid1001, "", api.VerbIdentityList, nil)}
	for _, from := range []string{"ann", "hers"} {
		for _, name := range []string{api.VerbContactList, api.VerbGrantList} {
			view = append(view, w.must(uid1001, from, name, nil))
		}
	}
	for _, m := range w.must(uid1001, "hers", api.VerbOutboxList, api.OutboxListArgs{All: true}).(api.OutboxPage).Messages {
		view = append(view, m.MessageID, m.State, m.Protocol)
	}
	for _, m := range w.must(uid1001, "hers", api.VerbInboxList, nil).(api.InboxPage).Messages {
		view = append(view, m.MessageID, m.Read, string(m.Data))
	}
	text, err := json.Marshal(view)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// What is told of the whole machine holds nothing of other users either.
func TestListsShowOnlyOnesOwn(t *testing.T) {
	testutil.LeakCheck(t)
	w := newWorld(t)
	w.must(uid1001, "hers", api.VerbContactAdd, api.ContactAddArgs{Name: "placed", ID: p2ptest.Key(t).ID().String(),
		Address: "/ip4/127.0.0.1/udp/9/quic-v1/p2p/" + p2ptest.Key(t).ID().String()})
	for _, name := range []string{api.VerbIdentityList, api.VerbContactList, api.VerbGrantList, api.VerbPeerList, api.VerbDaemonStatus,
		api.VerbOutboxList, api.VerbInboxList} {
		text, err := json.Marshal(w.must(uid1002, "", name, nil))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{w.id, w.contact, "hers", "herfriend", "placed", "theirs/1", `"ann"`, "private"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s tells 1002 of %s: %s", name, secret, text)
			}
		}
	}
}

// What the process is made of is for administrators.
func TestRuntimeIsForAdministrators(t *testing.T) {
	testutil.LeakCheck(t)
	w := newWorld(t)
	if r := w.Status(t.Context(), uid1002).Daemon.Runtime; r != nil {
		t.Errorf("a user is told %+v", r)
	}
	runtime.GC() // it says how much is alive
	r := w.Status(t.Context(), admin).Daemon.Runtime
	if r == nil || r.Goroutines < 5 || r.HeapBytes < 1<<10 || r.OpenFiles < 3 {
		t.Errorf("an administrator is told %+v", r)
	}
}

// Calls resolve both ends by their owner too.
func TestCallsSpeakOnlyForOnesOwn(t *testing.T) {
	testutil.LeakCheck(t)
	w := newWorld(t)
	b := (*backend)(w.Daemon)
	for _, from := range []string{"hers", w.id} {
		_, err := b.Identity(limited(t), uid1002, from)
		wantCode(t, err, api.CodeNotFound)
	}
	own, err := b.Identity(limited(t), uid1002, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Target(limited(t), uid1002, own, "herfriend")
	wantCode(t, err, api.CodeNotFound)
}

// Where somebody lives whom only 1001 knows, and whom all may call, is no help to
// 1002: its contact of that id, and its calls, are those of an id that nobody knows.
func TestContactsOfOthersAreUnknown(t *testing.T) {
	testutil.LeakCheck(t)
	w, far := newWorld(t), start(t, opts{})
	verb[api.Grant](t, far.c, api.VerbGrantAdd, api.GrantArgs{Who: api.WhoAnyone, Protocol: api.ProtocolEcho})
	c := w.must(uid1001, "hers", api.VerbContactAdd, api.ContactAddArgs{Name: "far", Ticket: far.invite(api.InviteArgs{})}).(api.Contact)
	if len(c.Nodes) != 1 || len(c.Addresses) == 0 {
		t.Fatalf("1001 does not know where its contact lives: %+v", c)
	}
	if err := w.echo(uid1001, "hers", c.ID52); err != nil {
		t.Fatal(full(err))
	}
	const hint = "/ip4/192.0.2.1/udp/9/quic-v1/p2p/"
	view := func(id, node string) string {
		t.Helper()
		var b bytes.Buffer
		told := func(name string, args any) {
			t.Helper()
			data, err := w.from(uid1002, "", name, args)
			text, marshalErr := json.Marshal(map[string]any{"data": data, "error": api.AsError(err)})
			if marshalErr != nil {
				t.Fatal(marshalErr)
			}
			b.WriteString(name + " " + string(text) + "\n")
		}
		call := func(target string) {
			t.Helper()
			err := w.echo(uid1002, "", target)
			wantCode(t, err, api.CodePeerUnreachable)
			b.WriteString("call " + full(err) + "\n")
		}
		call(id)
		told(api.VerbContactAdd, api.ContactAddArgs{Name: "friend", ID: id})
		told(api.VerbContactList, nil)
		told(api.VerbPeerList, nil)
		told(api.VerbPeerPing, api.TargetArgs{Target: "friend"})
		call("friend")
		call(id)
		told(api.VerbContactRemove, api.NameArgs{Name: "friend"})
		// Nor does one who names the node learn where others found it.
		told(api.VerbContactAdd, api.ContactAddArgs{Name: "friend", ID: id, Address: hint + node})
		told(api.VerbContactRemove, api.NameArgs{Name: "friend"})
		return added.ReplaceAllString(strings.NewReplacer(id, "ID", id[:8], "ID", node, "NODE").Replace(b.String()), "TIME")
	}
	foreign, missing := view(c.ID52, c.Nodes[0]), view(p2ptest.Key(t).ID().String(), p2ptest.Key(t).ID().String())
	wantSame(t, "contact of 1001", foreign, missing)
	wantText(t, missing, `"nodes":[]`, `"addresses":[]`, `"nodes":["NODE"],"addresses":["/ip4/192.0.2.1/udp/9/quic-v1"]`, "no address of ID is known")
}

var added = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)`)

// echo calls Echo as the given user.
func (w *world) echo(c ipc.Caller, from, target string) error {
	w.t.Helper()
	b, ctx := (*backend)(w.Daemon), limited(w.t)
	own, err := b.Identity(ctx, c, from)
	if err != nil {
		w.t.Fatal(full(err))
	}
	to, err := b.Target(ctx, c, own, target)
	if err != nil {
		return err
	}
	_, err = b.Route(ctx, &router.Request{From: own, To: to, Protocol: api.ProtocolEcho, Instance: api.DefaultInstance,
		Kind: router.Call, Payload: json.RawMessage(`{"message":"hello"}`), Timeout: patience})
	return err
}
