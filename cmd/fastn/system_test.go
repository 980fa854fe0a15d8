package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastn-stack/fastnd/service/api"
)

// fakeSystemctl answers "systemctl show" with the given states.
func fakeSystemctl(t *testing.T, socket, service string) {
	t.Helper()
	dir := t.TempDir()
	script := `#!/bin/sh
state=` + service + ` pid=0
[ "$2" = fastn.socket ] && state=` + socket + `
[ "$state$2" = activefastnd.service ] && pid=42
printf 'LoadState=loaded\nActiveState=%s\nSubState=\nUnitFileState=enabled\nMainPID=%s\nStatusText=\n' "$state" "$pid"
`
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// On a system install fastn shows what systemd says, and leaves starting and
// stopping to it.
func TestSystemInstall(t *testing.T) {
	const inactive, active = "inactive", "active"
	start := func(a *app) error { return systemAction(a, "start", "systemctl enable --now fastn.socket", true) }
	stop := func(a *app) error {
		return systemAction(a, "stop", "systemctl stop fastn.socket fastnd.service", false)
	}
	for _, test := range []struct {
		name, socket, service string
		do                    func(*app) error
		code                  api.Code
		hint                  string
	}{
		{"status of a running one", active, active, systemStatus, "", ""},
		{"status before the first client", active, inactive, systemStatus, "", ""},
		{"status of a stopped one", inactive, inactive, systemStatus, api.CodeUnavailable, "systemctl enable --now fastn.socket"},
		{"start of a running one", active, active, start, "", ""},
		{"start of a stopped one", inactive, inactive, start, api.CodeConflict, "systemctl enable --now fastn.socket"},
		{"stop of a running one", active, active, stop, api.CodeConflict, "systemctl stop fastn.socket fastnd.service"},
		{"stop of a stopped one", inactive, inactive, stop, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			fakeSystemctl(t, test.socket, test.service)
			a := testApp(t)
			out, err := os.Create(filepath.Join(t.TempDir(), "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			a.std.Out = out
			got := test.do(a)
			if api.CodeOf(got) != test.code {
				t.Fatalf("error %v, want code %q", got, test.code)
			}
			if got != nil && !strings.Contains(api.AsError(got).Hint, test.hint) {
				t.Errorf("hint %q does not name %q", api.AsError(got).Hint, test.hint)
			}
			shown, err := os.ReadFile(out.Name())
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"fastn.socket    " + test.socket, "fastnd.service  " + test.service} {
				if !strings.Contains(string(shown), want) {
					t.Errorf("%q is not shown in\n%s", want, shown)
				}
			}
		})
	}
}
