package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fastn-stack/fastnd/service/api"
)

type daemonCmd struct {
	Start      daemonStartCmd      `cmd:"" help:"Start your own daemon; it is no error if it runs."`
	Stop       daemonStopCmd       `cmd:"" help:"Stop your own daemon; it is no error if none runs."`
	Status     daemonStatusCmd     `cmd:"" help:"Tell whether the daemon runs; exit code 3 if not."`
	Reload     daemonReloadCmd     `cmd:"" help:"Make the daemon read its configuration again."`
	Disconnect daemonDisconnectCmd `cmd:"" help:"Cut the connections of a user (administrators)."`
	Backup     daemonBackupCmd     `cmd:"" help:"Write all keys and data to a new file (administrators)."`
	Restore    daemonRestoreCmd    `cmd:"" help:"Make keys and data anew from a backup."`
}

func (*daemonCmd) Help() string {
	return `With --home or FASTN_HOME these act on the per-user daemon of that folder. Without, they act on the
system's daemon where one is installed, and name the systemctl command; else on ~/.fastn. A socket,
from --socket or FASTN_SOCKET, can be asked for its status; it does not say what to start or stop.

Example:
  fastn daemon start
  fastn --home /tmp/alice daemon start
  fastn daemon status`
}

// ownDaemon tells the per-user daemon that a command is about. ok is false
// where the system's is meant.
func (a *app) ownDaemon() (p place, ok bool, err error) {
	if a.flags.Home != "" {
		p, err = inHome(a.flags.Home)
		return p, true, err
	}
	if named := a.socketNamed(); named != "" {
		return place{}, false, usage("%s does not say where the daemon lives", named).
			WithHint("name the daemon's folder with --home")
	}
	if h := os.Getenv(api.EnvHome); h != "" {
		p, err = inHome(h)
		return p, true, err
	}
	if systemInstalled(a.ctx) {
		return place{socket: api.SystemSocket}, false, nil
	}
	p, err = defaultHome()
	return p, true, err
}

type daemonStatusCmd struct{}

func (*daemonStatusCmd) Help() string {
	return `With --json: "running", "socket" and, if it runs, what the daemon tells of itself.

Example:
  fastn daemon status`
}

// daemonReport is what daemon start, stop and status print as JSON.
type daemonReport struct {
	Running bool   `json:"running"`
	Socket  string `json:"socket"`
	Home    string `json:"home,omitempty"`
	Log     string `json:"log,omitempty"`
	*api.Hello
}

func report(p place, h *api.Hello) daemonReport {
	r := daemonReport{Running: h != nil, Socket: p.socket, Home: p.home, Hello: h}
	if p.home != "" {
		r.Log = filepath.Join(p.home, logName)
	}
	return r
}

func (*daemonStatusCmd) run(a *app) error {
	if a.socketNamed() != "" {
		p, err := a.locate()
		if err != nil {
			return err
		}
		return showDaemon(a, p)
	}
	p, own, err := a.ownDaemon()
	if err != nil {
		return err
	}
	if !own {
		return systemStatus(a)
	}
	return showDaemon(a, p)
}

// showDaemon says what answers at p; the error, if none does, is the reason.
func showDaemon(a *app, p place) error {
	var h *api.Hello
	why := a.suspendedAt(p)
	if why == nil {
		h, why = a.helloAt(p)
	}
	if api.CodeOf(why) == api.CodeUnavailable {
		if lives := noSocket(p); lives != nil {
			why = noAnswer{lives}
		}
	}
	if a.flags.JSON {
		if err := a.printValue(report(p, h)); err != nil {
			return err
		}
		return why
	}
	if why != nil {
		return why
	}
	return a.write(bytes.NewBufferString(visible(a.here(runningText(p, h))) + "\n"))
}

func runningText(p place, h *api.Hello) string {
	text := fmt.Sprintf("fastnd %s runs, pid %d, socket %s", h.Daemon, h.PID, p.socket)
	if h.Locked {
		text += `; it is locked: "fastn status" tells why`
	}
	return text
}

type daemonReloadCmd struct{}

func (*daemonReloadCmd) Help() string {
	return `Reads fastn.toml and the keys again. A configuration with a fault is refused, and the old one stays
in force. An identity whose key was mended is served again. What "fastn status" tells of losses and
damage is acknowledged by it: it is told a last time here, and no more by status. A node key that is
another one than before needs a restart.

Example:
  fastn daemon reload`
}

func (*daemonReloadCmd) run(a *app) error {
	var r api.ReloadResult
	if printed, err := a.ask(api.VerbDaemonReload, struct{}{}, &r); printed || err != nil {
		return err
	}
	if r.Unlocked {
		a.note("the daemon was locked, and runs its node now; all of the configuration is in force")
	} else if len(r.Applied)+len(r.Restart) == 0 {
		a.note("nothing has changed in the configuration; the keys were read again")
	}
	for _, i := range r.Online {
		a.note("online again: identity %s of %s", i.Name, i.Owner)
	}
	if n := len(r.Acknowledged); n > 0 {
		what := "1 problem is acknowledged"
		if n > 1 {
			what = fmt.Sprintf("%d problems are acknowledged", n)
		}
		a.note("%s, and not told again:", what)
		for _, line := range r.Acknowledged {
			a.note("  %s", line)
		}
	}
	for _, p := range r.Problems {
		a.note("problem: %s", p.Text)
		a.note("  fix: %s", p.Fix)
	}
	var changed []string
	if len(r.Applied) > 0 {
		changed = append(changed, "in force now", strings.Join(r.Applied, ", "))
	}
	if len(r.Restart) > 0 {
		changed = append(changed, "after a restart", strings.Join(r.Restart, ", "))
	}
	var b bytes.Buffer
	pairs(&b, changed...)
	return a.write(&b)
}

type daemonDisconnectCmd struct {
	User string `arg:"" help:"Name or number of the user."`
}

func (*daemonDisconnectCmd) Help() string {
	return `Groups are read when a connection is made: who was removed from group fastn keeps the connections
that are open until they are cut. Programs that run already keep their groups, the kernel's rule, and
can connect again until they end.

Example:
  fastn daemon disconnect alice`
}

func (c *daemonDisconnectCmd) run(a *app) error {
	raw, err := a.verb(api.VerbDaemonDisconnect, api.UserArgs{User: c.User})
	if err != nil {
		return err
	}
	var d api.Disconnected
	if err := decode(raw, &d); err != nil {
		return err
	}
	if err := a.done(raw, "cut %s of %s", yesNo(d.Connections == 1, "1 connection", strconv.Itoa(d.Connections)+" connections"), c.User); err != nil {
		return err
	}
	if p, err := a.locate(); err != nil || p.socket != api.SystemSocket {
		return err
	}
	// A person's shells are among them, so that only the administrator may decide.
	a.note(`hint: programs that run already keep their groups and can connect again; "pkill -KILL -u %s" ends them`,
		strings.TrimPrefix(c.User, "uid-"))
	return nil
}
