package foreign

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/service/client"
)

// example is a request of PROTOCOL.md and the answer below it.
type example struct {
	line    int
	request *api.Request
	answer  api.Response
}

func protocol(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../service/api/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// examples are those whose answer is no error.
func examples(t *testing.T) []example {
	t.Helper()
	lines := strings.Split(protocol(t), "\n")
	var all []example
	for i, line := range lines {
		request, ok := strings.CutPrefix(strings.TrimSpace(line), "→ ")
		if !ok || i+1 == len(lines) {
			continue
		}
		answer, ok := strings.CutPrefix(strings.TrimSpace(lines[i+1]), "← ")
		if !ok {
			continue
		}
		e := example{line: i + 1}
		var err error
		if e.request, _, _, err = api.ParseRequest([]byte(request)); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if err := json.Unmarshal([]byte(answer), &e.answer); err != nil {
			t.Fatalf("line %d: %v", i+2, err)
		}
		if e.answer.Status != api.StatusError {
			all = append(all, e)
		}
	}
	return all
}

// optional are the members that PROTOCOL.md marks as such.
func optional(t *testing.T) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	for _, m := range regexp.MustCompile("`([a-z0-9_]+)`\\?").FindAllStringSubmatch(protocol(t), -1) {
		all[m[1]] = true
	}
	return all
}

// comparer holds examples against what a daemon says.
type comparer struct {
	t        *testing.T
	optional map[string]bool
}

// same checks that two JSON values have the same members, and elements where the
// other has some, all the way down. Addresses end alike.
func (c comparer) same(where string, example, real any) {
	c.t.Helper()
	switch e := example.(type) {
	case map[string]any:
		r, ok := real.(map[string]any)
		if !ok {
			c.t.Errorf("%s: the example is an object, the daemon says %v", where, real)
			return
		}
		for name := range e {
			if _, ok := r[name]; ok {
				c.same(where+"."+name, e[name], r[name])
			} else if !c.optional[name] {
				c.t.Errorf("%s: the daemon says no %q", where, name)
			}
		}
		for name := range r {
			if _, ok := e[name]; !ok && !c.optional[name] {
				c.t.Errorf("%s: the example has no %q", where, name)
			}
		}
	case []any:
		r, ok := real.([]any)
		if !ok {
			c.t.Errorf("%s: the example is an array, the daemon says %v", where, real)
			return
		}
		if len(e) > 0 && len(r) > 0 {
			c.same(where+"[0]", e[0], r[0])
		}
	case string:
		r, ok := real.(string)
		if !ok || strings.HasPrefix(e, "/ip4/") && strings.Contains(e, "/p2p/") != strings.Contains(r, "/p2p/") {
			c.t.Errorf("%s: the example is %q, the daemon says %v", where, e, real)
		}
	default:
		if fmt.Sprintf("%T", example) != fmt.Sprintf("%T", real) {
			c.t.Errorf("%s: the example is %v, the daemon says %v", where, example, real)
		}
	}
}

func (c comparer) sameJSON(where string, example, real json.RawMessage) {
	c.t.Helper()
	var e, r any
	for text, dst := range map[*json.RawMessage]*any{&example: &e, &real: &r} {
		if len(*text) == 0 {
			continue
		}
		if err := json.Unmarshal(*text, dst); err != nil {
			c.t.Fatalf("%s: %v", where, err)
		}
	}
	c.same(where, e, r)
}

// verbs sends the examples of verbs to a daemon, with what each needs before it.
type verbs struct {
	t         *testing.T
	ctx       context.Context
	us, other *client.Client
	key       string // file that identity.export writes
}

func (v *verbs) do(c *client.Client, verb string, args, out any, files ...*os.File) {
	v.t.Helper()
	if err := c.Verb(v.ctx, verb, args, out, files...); err != nil {
		v.t.Fatalf("%s %v: %v", verb, args, err)
	}
}

func (v *verbs) ticket() string {
	v.t.Helper()
	var inv api.Invitation
	v.do(v.other, api.VerbContactInvite, api.InviteArgs{}, &inv)
	return inv.Ticket
}

func (v *verbs) addBob() {
	v.t.Helper()
	v.do(v.us, api.VerbContactAdd, api.ContactAddArgs{Name: "bob", Ticket: v.ticket()}, nil)
}

// send sends the message that r is about.
func (v *verbs) send(r *api.Request, target string) {
	v.t.Helper()
	var args api.OutboxArgs
	if err := json.Unmarshal(r.Data, &args); err != nil {
		v.t.Fatal(err)
	}
	m := client.Message{Target: target, Protocol: api.ProtocolText, ID: args.MessageID, Data: json.RawMessage(`{"text":"hello"}`)}
	if _, err := v.us.Send(v.ctx, m); err != nil {
		v.t.Fatal(err)
	}
}

// prepare makes e's request one that can be done, as the one before left things.
func (v *verbs) prepare(r *api.Request) (files []*os.File) {
	v.t.Helper()
	open := func(flags int) []*os.File {
		f, err := os.OpenFile(v.key, flags, 0o600)
		if err != nil {
			v.t.Fatal(err)
		}
		v.t.Cleanup(func() { f.Close() })
		return []*os.File{f}
	}
	switch r.Type {
	case api.VerbIdentityExport:
		v.do(v.us, api.VerbIdentityRename, api.RenameArgs{Name: "office", To: "work"}, nil)
		return open(os.O_CREATE | os.O_EXCL | os.O_WRONLY)
	case api.VerbDaemonBackup:
		v.key += ".tar"
		return open(os.O_CREATE | os.O_EXCL | os.O_WRONLY)
	case api.VerbIdentityImport:
		v.do(v.us, api.VerbIdentityRemove, api.IdentityArgs{Identity: "work"}, nil)
		return open(os.O_RDONLY)
	case api.VerbIdentityOnline:
		v.do(v.us, api.VerbIdentityNew, api.NameArgs{Name: "work"}, nil)
	case api.VerbContactAdd:
		r.Data = json.RawMessage(strings.Replace(string(r.Data), "fastn1…", v.ticket(), 1))
	case api.VerbContactRemove:
		v.do(v.us, api.VerbContactRename, api.RenameArgs{Name: "robert", To: "bob"}, nil)
	case api.VerbContactBlock:
		v.addBob()
	case api.VerbPeerList:
		v.do(v.us, api.VerbPeerPing, api.TargetArgs{Target: "bob"}, nil)
	case api.VerbOutboxWait:
		v.send(r, api.TargetSelf)
	case api.VerbOutboxCancel, api.VerbOutboxRetry: // to nobody, so that they wait
		v.send(r, "6pi0ttr1jr0cjv78a2theal9jl2si56gedjun04cttfc8kg70490")
	case api.VerbInboxShow:
		v.send(r, api.TargetSelf)
		v.do(v.us, api.VerbOutboxWait, r.Data, nil)
	case api.VerbDaemonDisconnect:
		r.Data = json.RawMessage(fmt.Sprintf(`{"user":"%d"}`, os.Getuid()))
	}
	return nil
}

// TestExamplesOfVerbs: what PROTOCOL.md shows of each verb is what a daemon says.
func TestExamplesOfVerbs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	us, other := client.New(startDaemon(t), client.Options{}), client.New(startDaemon(t), client.Options{})
	defer us.Close()
	defer other.Close()
	v := &verbs{t: t, ctx: ctx, us: us, other: other, key: filepath.Join(t.TempDir(), "key")}
	for _, c := range []*client.Client{us, other} { // the first identity is made on first use
		if _, err := c.Call(ctx, client.Request{Target: "self", Protocol: "Echo", Data: json.RawMessage(`{"message":"x"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	cmp := comparer{t, optional(t)}
	var seen []string
	var stop example
	all := examples(t)
	for _, e := range all {
		isVerb := slices.ContainsFunc(api.Verbs(), func(v api.Verb) bool { return v.Name == e.request.Type })
		if e.request.Type == api.VerbDaemonStop {
			stop = e
		}
		if !isVerb || e.request.Type == api.VerbDaemonStop {
			continue
		}
		v.run(cmp, e)
		seen = append(seen, e.request.Type)
		if e.request.Type == api.VerbDaemonDisconnect {
			// The connection that disconnected itself may still look alive.
			v.us = client.New(us.Path(), client.Options{})
			defer v.us.Close()
		}
	}
	v.run(cmp, stop) // nothing could come behind it
	if len(seen)+1 != len(api.Verbs()) {
		t.Errorf("of %d verbs only %d ran: %q", len(api.Verbs()), len(seen)+1, seen)
	}
}

func (v *verbs) run(cmp comparer, e example) {
	v.t.Helper()
	files := v.prepare(e.request)
	var args any
	if len(e.request.Data) > 0 {
		args = e.request.Data
	}
	var got json.RawMessage
	v.do(v.us, e.request.Type, args, &got, files...)
	where := fmt.Sprintf("line %d, %s", e.line, e.request.Type)
	cmp.sameJSON(where, e.answer.Data, got)
	if e.request.Type == api.VerbDaemonStatus {
		sameSettings(v.t, where, e.answer.Data, got)
	}
}

// sameSettings checks that the settings named in the example exist.
func sameSettings(t *testing.T, where string, example, real json.RawMessage) {
	t.Helper()
	settings := func(data json.RawMessage) (all []string) {
		var s api.Status
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		for _, b := range s.Budgets {
			all = append(all, b.Budget+" "+b.Setting)
		}
		return all
	}
	known := settings(real)
	for _, s := range settings(example) {
		if !slices.Contains(known, s) {
			t.Errorf("%s: there is no budget %q among %q", where, s, known)
		}
	}
}

// TestExamplesOfRequests: the same for what needs no second daemon of the other
// sections.
func TestExamplesOfRequests(t *testing.T) {
	path := startDaemon(t)
	cmp := comparer{t, map[string]bool{"data": true}}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	ran := make(map[string]int)
	for _, e := range examples(t) {
		r := *e.request
		switch {
		case r.Type == api.TypeHello, r.Type == api.TypeSubscribe, r.Type == api.TypeListen, r.Type == api.TypeUnlisten:
		case r.Type == api.TypeCall && r.Protocol == api.ProtocolEcho && r.From == "":
			r.Target = api.TargetSelf
		default:
			continue
		}
		ran[r.Type]++
		if _, err := conn.Write(api.AppendRequest(nil, &r)); err != nil {
			t.Fatal(err)
		}
		line, err := in.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(e.answer)
		if err != nil {
			t.Fatal(err)
		}
		cmp.sameJSON(fmt.Sprintf("line %d, %s", e.line, r.Type), want, line)
	}
	for _, typ := range []string{api.TypeHello, api.TypeSubscribe, api.TypeListen, api.TypeUnlisten, api.TypeCall} {
		if ran[typ] == 0 {
			t.Errorf("no example of %s ran", typ)
		}
	}
}
