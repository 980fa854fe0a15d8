package api_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

func protocolText(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// constants are the string constants of package api whose name has the prefix.
func constants(t *testing.T, prefix string) []string {
	t.Helper()
	var found []string
	for _, file := range []string{"doc.go", "error.go", "verbs.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) == 0 {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				found = append(found, s)
			}
			return true
		})
	}
	if len(found) < 5 {
		t.Fatalf("only %d constants %s… were found", len(found), prefix)
	}
	return found
}

// members are the JSON names of a struct's fields.
func members(v any) []string {
	var names []string
	for typ, i := reflect.TypeOf(v), 0; i < typ.NumField(); i++ {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

func TestProtocolIsComplete(t *testing.T) {
	text := protocolText(t)
	names := map[string][]string{"code": constants(t, "Code"), "status": constants(t, "Status"), "type": constants(t, "Type"),
		"verb": constants(t, "Verb"), "event": constants(t, "Event"),
		"request member": members(api.Request{}), "answer member": members(api.Response{})}
	for _, v := range []any{api.HelloArgs{}, api.Hello{}, api.NameArgs{}, api.IdentityArgs{}, api.RenameArgs{}, api.TargetArgs{}, api.UserArgs{}, api.Identity{},
		api.InviteArgs{}, api.Invitation{}, api.ContactAddArgs{}, api.Contact{}, api.GrantArgs{}, api.Grant{}, api.Decision{}, api.Peer{}, api.Pong{}, api.Status{},
		api.Problem{}, api.Wanted{}, api.Mail{}, api.NodeStatus{}, api.BudgetUse{}, api.DaemonStatus{}, api.Runtime{}, api.ReloadResult{}, api.Disconnected{}, api.Backup{}, api.ListenArgs{}, api.Incoming{},
		api.StreamResult{}, api.SendResult{}, api.OutboxListArgs{}, api.OutboxArgs{}, api.OutboxMessage{}, api.OutboxPage{},
		api.InboxListArgs{}, api.InboxArgs{}, api.InboxMessage{}, api.InboxPage{}, api.SubscribeArgs{}, api.Subscribed{}, api.Event{}} {
		names["member of "+reflect.TypeOf(v).Name()] = members(v)
	}
	for kind, all := range names {
		for _, name := range all {
			if !strings.Contains(text, "`"+name+"`") && !strings.Contains(text, `"`+name+`":`) {
				t.Errorf("PROTOCOL.md does not tell of %s %q", kind, name)
			}
		}
	}
	for _, name := range append(constants(t, "Type"), constants(t, "Verb")...) {
		if !strings.Contains(text, `"type":"`+name+`"`) {
			t.Errorf("PROTOCOL.md has no example of %q", name)
		}
	}
	for _, v := range api.Verbs() {
		if !strings.Contains(text, "\n| `"+v.Name+"` |") {
			t.Errorf("%q is not in the table of verbs", v.Name)
		}
	}
}

func TestEventKinds(t *testing.T) {
	want := constants(t, "Event")
	slices.Sort(want)
	if got := api.EventKinds(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Every example is what it says: a request that is taken, or an answer.
func TestProtocolExamples(t *testing.T) {
	requests, answers := 0, 0
	for i, line := range strings.Split(protocolText(t), "\n") {
		line = strings.TrimSpace(line)
		if request, ok := strings.CutPrefix(line, "→ "); ok {
			requests++
			r, _, _, err := api.ParseRequest([]byte(request))
			if err != nil {
				t.Errorf("line %d: %v", i+1, err)
				continue
			}
			if got := string(api.AppendRequest(nil, r)); got != request+"\n" {
				t.Errorf("line %d is written otherwise:\n%s%s", i+1, got, request)
			}
		}
		if answer, ok := strings.CutPrefix(line, "← "); ok {
			answers++
			checkAnswer(t, i+1, answer)
		}
	}
	if requests < 40 || answers < 40 {
		t.Errorf("only %d requests and %d answers were found", requests, answers)
	}
}

func checkAnswer(t *testing.T, number int, line string) {
	t.Helper()
	var r api.Response
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Errorf("line %d: %v", number, err)
		return
	}
	id := ""
	if r.ID != nil {
		id = *r.ID
	}
	var written []byte
	if e := r.Err(); e != nil {
		written = api.AppendError(nil, id, r.ID == nil, api.AsError(e))
	} else {
		written = api.AppendAnswer(nil, id, r.Status, r.Data)
	}
	if string(written) != line+"\n" {
		t.Errorf("line %d is written otherwise:\n%s%s", number, written, line)
	}
}

// exampleData are the types whose JSON the examples of verbs must be, with no
// member that does not exist.
var exampleData = map[string][2]any{
	api.VerbIdentityList: {nil, []api.Identity{}}, api.VerbIdentityNew: {api.NameArgs{}, api.Identity{}},
	api.VerbIdentityShow: {api.IdentityArgs{}, api.Identity{}}, api.VerbIdentityRename: {api.RenameArgs{}, api.Identity{}},
	api.VerbIdentityExport: {api.IdentityArgs{}, api.Identity{}}, api.VerbIdentityImport: {api.NameArgs{}, api.Identity{}},
	api.VerbIdentityRemove: {api.IdentityArgs{}, struct{}{}}, api.VerbIdentityOnline: {api.IdentityArgs{}, api.Identity{}},
	api.VerbIdentityOffline: {api.IdentityArgs{}, api.Identity{}},
	api.VerbContactInvite:   {api.InviteArgs{}, api.Invitation{}}, api.VerbContactAdd: {api.ContactAddArgs{}, api.Contact{}},
	api.VerbContactList: {nil, []api.Contact{}}, api.VerbContactRename: {api.RenameArgs{}, api.Contact{}},
	api.VerbContactRemove: {api.NameArgs{}, struct{}{}}, api.VerbContactBlock: {api.NameArgs{}, api.Contact{}},
	api.VerbContactUnblock: {api.NameArgs{}, api.Contact{}},
	api.VerbGrantAdd:       {api.GrantArgs{}, api.Grant{}}, api.VerbGrantList: {nil, []api.Grant{}},
	api.VerbGrantRemove: {api.GrantArgs{}, struct{}{}}, api.VerbAccessWhy: {api.GrantArgs{}, api.Decision{}},
	api.VerbOutboxList: {api.OutboxListArgs{}, api.OutboxPage{}}, api.VerbOutboxShow: {api.OutboxArgs{}, api.OutboxMessage{}},
	api.VerbOutboxWait: {api.OutboxArgs{}, api.OutboxMessage{}}, api.VerbOutboxCancel: {api.OutboxArgs{}, api.OutboxMessage{}},
	api.VerbOutboxRetry: {api.OutboxArgs{}, api.OutboxMessage{}}, api.VerbInboxList: {api.InboxListArgs{}, api.InboxPage{}},
	api.VerbInboxShow: {api.InboxArgs{}, api.InboxMessage{}}, api.VerbInboxRead: {api.InboxArgs{}, api.InboxMessage{}},
	api.VerbInboxRemove: {api.InboxArgs{}, api.InboxMessage{}},
	api.VerbPeerList:    {nil, []api.Peer{}}, api.VerbPeerPing: {api.TargetArgs{}, api.Pong{}},
	api.VerbDaemonStatus: {nil, api.Status{}}, api.VerbDaemonReload: {nil, api.ReloadResult{}},
	api.VerbDaemonStop: {nil, struct{}{}}, api.VerbDaemonDisconnect: {api.UserArgs{}, api.Disconnected{}},
	api.VerbDaemonBackup: {nil, api.Backup{}},
}

func TestProtocolVerbExamples(t *testing.T) {
	lines := strings.Split(protocolText(t), "\n")
	seen := make(map[string]bool)
	for i, line := range lines {
		request, ok := strings.CutPrefix(strings.TrimSpace(line), "→ ")
		if !ok {
			continue
		}
		r, _, _, err := api.ParseRequest([]byte(request))
		if err != nil {
			continue // told by TestProtocolExamples
		}
		types, ok := exampleData[r.Type]
		if !ok {
			continue
		}
		seen[r.Type] = true
		if (types[0] == nil) != (len(r.Data) == 0) {
			t.Errorf("line %d: arguments of %s", i+1, r.Type)
		} else if types[0] != nil {
			strict(t, i+1, r.Data, types[0])
			if err := api.CheckArgs(r.Data, types[0]); err != nil {
				t.Errorf("line %d: %v", i+1, err)
			}
		}
		var a api.Response
		if err := json.Unmarshal([]byte(strings.TrimPrefix(strings.TrimSpace(lines[i+1]), "← ")), &a); err != nil {
			t.Errorf("line %d: %v", i+2, err)
		}
		strict(t, i+2, a.Data, types[1])
	}
	for _, v := range api.Verbs() {
		if v.Args != exampleData[v.Name][0] {
			t.Errorf("%s takes %T, not %T", v.Name, exampleData[v.Name][0], v.Args)
		}
		if !seen[v.Name] {
			t.Errorf("no example of %s", v.Name)
		}
	}
}

func strict(t *testing.T, line int, data json.RawMessage, like any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(reflect.New(reflect.TypeOf(like)).Interface()); err != nil {
		t.Errorf("line %d: %v", line, err)
	}
}

// What requests carry is read member by member: each has a field of its own.
func TestArgsAreFlat(t *testing.T) {
	all := []any{api.HelloArgs{}, api.ListenArgs{}, api.SubscribeArgs{}}
	for _, v := range api.Verbs() {
		if v.Args != nil {
			all = append(all, v.Args)
		}
	}
	for _, args := range all {
		of := reflect.TypeOf(args)
		for i := range of.NumField() {
			f := of.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.IsExported() || f.Anonymous || name == "" || name == "-" {
				t.Errorf("%v.%s has the JSON name %q", of, f.Name, name)
			}
		}
	}
}
