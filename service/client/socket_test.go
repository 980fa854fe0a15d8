package client

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

func TestResolveSocket(t *testing.T) {
	dir := t.TempDir()
	system, unit, home := filepath.Join(dir, "system.sock"), filepath.Join(dir, "fastn.socket"), filepath.Join(dir, "home")
	own := filepath.Join(home, ".fastn", "daemon.sock")
	touch := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{}
	p := places{system: system, unit: unit, home: home, getenv: func(k string) string { return env[k] }}
	want := func(what, flagSocket, flagHome, want string) {
		t.Helper()
		if got := p.resolve(flagSocket, flagHome); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	want("nothing anywhere", "", "", own)
	touch(unit)
	want("installed, not started", "", "", system)
	touch(own)
	want("only the user's", "", "", own)
	touch(system)
	want("both", "", "", system)
	env[api.EnvHome] = "/env/home"
	want("FASTN_HOME", "", "", "/env/home/daemon.sock")
	env[api.EnvSocket] = "/env/socket"
	want("FASTN_SOCKET", "", "", "/env/socket")
	want("--home", "", "/flag/home", "/flag/home/daemon.sock")
	want("--socket", "/flag/socket", "/flag/home", "/flag/socket")
}

func TestHints(t *testing.T) {
	if got := startHint(api.SystemSocket); got != `start it with "systemctl enable --now fastn.socket"` {
		t.Errorf("start: %s", got)
	}
	got := accessHint(api.SystemSocket)
	head, tail := `you are not in group "fastn"; an administrator can add you with "adduser `, ` fastn", then log in again`
	if name := strings.TrimSuffix(strings.TrimPrefix(got, head), tail); got != head+name+tail || name == "" || strings.Contains(name, " ") {
		t.Errorf("access: %s", got)
	}
	if got := accessHint("/home/bob/.fastn/daemon.sock"); got != `this daemon is another user's; start your own with "fastn daemon start"` {
		t.Errorf("access to another's: %s", got)
	}
}

func TestParseAnswer(t *testing.T) {
	for line, want := range map[string]answer{
		`{"id":"1","status":"ok","data":{"a":"}"}}`:          {id: "1", status: "ok", data: []byte(`{"a":"}"}`)},
		`{"id":"1","status":"ok"}`:                           {id: "1", status: "ok"},
		`{"id":"\"1","status":"ok","data":1}`:                {id: `"1`, status: "ok", data: []byte("1")},
		` {"status":"ok","data":1,"more":2,"id":"1"}`:        {id: "1", status: "ok", data: []byte("1")},
		`{"id":"1","status":"streaming"}`:                    {id: "1", status: "streaming"},
		`{"id":null,"status":"error","data":"x","code":"c"}`: {noID: true, status: "error", data: []byte(`"x"`)},
	} {
		got, err := parseAnswer([]byte(line))
		if err != nil || got.id != want.id || got.noID != want.noID || got.status != want.status || string(got.data) != string(want.data) {
			t.Errorf("%s: %+v, %v", line, got, err)
		}
	}
	for _, bad := range []string{``, `{`, `x`, `[]`, `{"id":1}`} {
		if a, err := parseAnswer([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, a)
		}
	}
}

func TestSystemPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may connect to every socket; test/e2e connects as an outsider")
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	_, err = dial(t.Context(), path)
	if api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("error %v", err)
	}
}
