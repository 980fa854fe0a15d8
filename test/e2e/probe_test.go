package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fastn-stack/fastnd/service/api"
	"github.com/fastn-stack/fastnd/test/e2e/nspawn"
)

// probe is a running probe of a user's.
type probe struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	errs  bytes.Buffer
}

// probeLimit bounds a probe's life, with all that is done to the daemon meanwhile.
const probeLimit = 3 * time.Minute

func startProbe(t *testing.T, m *nspawn.Machine, user string, args ...string) *probe {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), probeLimit)
	t.Cleanup(cancel)
	p := &probe{t: t, cmd: m.CommandContext(ctx, user, append([]string{"probe"}, args...)...)}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	p.cmd.Stderr = &p.errs
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stdin.Close() }) // else what runs inside goes on
	return p
}

// line returns the probe's next line, "" if there is none.
func (p *probe) line() string {
	s, _ := p.out.ReadString('\n')
	return strings.TrimSuffix(s, "\n")
}

func (p *probe) expect(want string) {
	p.t.Helper()
	if got := p.line(); got != want {
		p.wait()
		p.t.Fatalf("probe said %q, want %q; %s", got, want, &p.errs)
	}
}

func (p *probe) say(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

func (p *probe) wait() error {
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, &p.errs)
	}
	return nil
}

// question is one request, and the file to open as its descriptor.
type question struct {
	Request api.Request `json:"request"`
	File    string      `json:"file,omitempty"`
}

// ask sends the requests as user and returns the answers in the same order.
func ask(t *testing.T, m *nspawn.Machine, user string, questions ...question) []api.Response {
	t.Helper()
	var in bytes.Buffer
	for _, q := range questions {
		q.Request.ID = "q"
		line, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(line, '\n'))
	}
	r := m.RunInput(user, in.String(), "probe", "ask")
	if r.Code != 0 {
		t.Fatalf("probe ask: %v", r)
	}
	var answers []api.Response
	for line := range strings.Lines(r.Out) {
		var a api.Response
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(questions) {
		t.Fatalf("%d answers to %d requests", len(answers), len(questions))
	}
	return answers
}

// verb makes a request of a management verb.
func verb(name string, args any) question {
	data, err := json.Marshal(args)
	if err != nil {
		panic(err) // a test's own literal
	}
	return question{Request: api.Request{Type: name, Data: data}}
}

// get asks a verb that must succeed and decodes its answer.
func get[T any](t *testing.T, m *nspawn.Machine, user, name string, args any) T {
	t.Helper()
	a := ask(t, m, user, verb(name, args))[0]
	if err := a.Err(); err != nil {
		t.Fatalf("%s as %s: %s (%s)", name, user, err, a.Code)
	}
	var v T
	if err := json.Unmarshal(a.Data, &v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}
