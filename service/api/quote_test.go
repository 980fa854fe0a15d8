package api_test

import (
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"/tmp/a-b_c.d": "/tmp/a-b_c.d", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'", "~": "'~'", "ä": "'ä'",
		"a\nb": `'a\nb'`, "a\x1b[2J": `'a\x1b[2J'`, "\xff": `'\xff'`, "\n$(id)'": `'\n$(id)'\'''`, "\n\"": `'\n\"'`,
	} {
		if got := api.ShellQuote(in); got != want {
			t.Errorf("ShellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestCommandsOfHints(t *testing.T) {
	for got, want := range map[string]string{
		api.GrantCommand("bob", "Orders", ""):        "fastn grant add bob Orders",
		api.GrantCommand("bob", "Orders", "default"): "fastn grant add bob Orders",
		api.GrantCommand("bob", "Orders", "work"):    "fastn grant add --instance work bob Orders",
		api.GrantCommand("bob", "-x", "work"):        "fastn grant add --instance work -- bob -x",
		api.GrantCommand("bob", "$(x);y", ""):        "fastn grant add bob '$(x);y'",
		api.ListenCommand("Orders", ""):              "fastn listen Orders",
		api.ListenCommand("-x;", "work"):             "fastn listen --instance work -- '-x;'",
		api.TakeCommand("Orders", "work"):            "fastn listen --messages --instance work Orders -- CMD",
		api.TakeCommand("--help", ""):                "fastn listen --messages -- --help CMD",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestServiceName(t *testing.T) {
	for instance, want := range map[string]string{"": "Echo", api.DefaultInstance: "Echo", "two": "Echo (instance two)"} {
		if got := api.ServiceName("Echo", instance); got != want {
			t.Errorf("%q: %q, want %q", instance, got, want)
		}
	}
	if api.Instance("") != api.DefaultInstance || api.Instance("two") != "two" {
		t.Error("only an empty instance is the default one")
	}
}

// What people wrote is shown as they wrote it.
func TestMarshalLeavesHTML(t *testing.T) {
	got, err := api.Marshal(map[string]string{"text": "a < b && c > d"})
	if err != nil || string(got) != `{"text":"a < b && c > d"}` {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := api.Marshal(func() {}); err == nil {
		t.Error("a function became JSON")
	}
}
