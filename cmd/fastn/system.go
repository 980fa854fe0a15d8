package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"

	"github.com/fastn-stack/fastnd/service/api"
)

// systemInstalled tells that systemd runs here and knows fastn's socket unit.
func systemInstalled(ctx context.Context) bool {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return false
	}
	return unitState(ctx, "fastn.socket")["LoadState"] == "loaded"
}

// unitState is what systemctl tells of a unit; empty if it cannot be asked.
func unitState(ctx context.Context, unit string) map[string]string {
	out, err := exec.CommandContext(ctx, "systemctl", "show", unit,
		"--property=LoadState,ActiveState,SubState,UnitFileState,MainPID,StatusText").Output()
	if err != nil {
		return nil
	}
	state := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		state[key] = value
	}
	return state
}

// systemReport is what systemd says, for --json.
type systemReport struct {
	Running bool              `json:"running"`
	Socket  string            `json:"socket"`
	Units   map[string]string `json:"units"` // unit → active state
}

// showSystem prints what systemd says of the units, and returns the state of
// the socket's and the service's.
func showSystem(a *app) (socketUp, serviceUp bool, err error) {
	socket, service := unitState(a.ctx, "fastn.socket"), unitState(a.ctx, "fastnd.service")
	socketUp, serviceUp = socket["ActiveState"] == "active", service["ActiveState"] == "active"
	if a.flags.JSON {
		return socketUp, serviceUp, a.printValue(systemReport{serviceUp, api.SystemSocket, map[string]string{
			"fastn.socket": socket["ActiveState"], "fastnd.service": service["ActiveState"]}})
	}
	var b bytes.Buffer
	a.table(&b, []string{"UNIT", "STATE", "AT BOOT", "PID", "SAYS"}, [][]string{
		{"fastn.socket", stateText(socket), socket["UnitFileState"], "", ""},
		{"fastnd.service", stateText(service), service["UnitFileState"], pidText(service["MainPID"]), service["StatusText"]},
	})
	return socketUp, serviceUp, a.write(&b)
}

func stateText(s map[string]string) string {
	if s["SubState"] == "" {
		return s["ActiveState"]
	}
	return s["ActiveState"] + " (" + s["SubState"] + ")"
}

func pidText(pid string) string {
	if pid == "0" {
		return ""
	}
	return pid
}

// systemAction answers daemon start and stop on a system install: it is done
// already, or systemctl does it.
func systemAction(a *app, what, command string, wantUp bool) error {
	socketUp, serviceUp, err := showSystem(a)
	if err != nil {
		return err
	}
	if wantUp == (socketUp || serviceUp) {
		return nil
	}
	return api.Errorf(api.CodeConflict, "the daemon of this system is not %s by fastn: systemd does it", pastOf(what)).
		WithHint(`an administrator can run "%s"; your own daemon: "fastn --home ~/.fastn daemon %s"`, command, what)
}

func pastOf(what string) string {
	if what == "stop" {
		return "stopped"
	}
	return "started"
}

func systemStatus(a *app) error {
	socketUp, serviceUp, err := showSystem(a)
	if err != nil || socketUp || serviceUp {
		return err
	}
	return api.Errorf(api.CodeUnavailable, "the daemon of this system is stopped").
		WithHint(`an administrator can start it with "systemctl enable --now fastn.socket"`)
}
