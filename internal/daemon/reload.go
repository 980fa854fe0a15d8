package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/fastn-stack/fastnd/internal/config"
	"github.com/fastn-stack/fastnd/internal/keystore"
	"github.com/fastn-stack/fastnd/internal/sqlite"
	"github.com/fastn-stack/fastnd/internal/systemd"
	"github.com/fastn-stack/fastnd/service/api"
)

// reloadNotified is a reload as systemd asks for it by SIGHUP.
func (d *Daemon) reloadNotified(ctx context.Context) {
	if err := d.notify.Reloading(); err != nil {
		d.log.Error("cannot tell systemd of the reload", "error", err)
	}
	// What went wrong is in the journal and in `fastn status`.
	_, _ = d.Reload(ctx)
	if err := d.notify.Ready(d.status()); err != nil {
		d.log.Error("cannot tell systemd that the daemon is ready", "error", err)
	}
}

// Reload reads the configuration and the keystore again. A bad configuration
// changes nothing. A locked daemon tries to start its node.
func (d *Daemon) Reload(ctx context.Context) (api.ReloadResult, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	cfg, err := d.o.loadConfig()
	if err != nil {
		return api.ReloadResult{}, d.refuseReload(err)
	}
	result := api.ReloadResult{Applied: []string{}, Restart: []string{}}
	n := d.node.Load()
	if n == nil {
		d.apply(cfg)
		d.problems.Store(&[]api.Problem{})
		d.startNode(context.WithoutCancel(ctx))
		if p := d.locked.Load(); p != nil {
			return result, api.Errorf(api.CodeLocked, "%s", p.Text).WithHint("%s", p.Fix)
		}
		result.Unlocked = true
	} else {
		result.Restart = append(result.Restart, config.Reloadable(d.underNode, cfg)...)
		for _, key := range config.Changed(d.config, cfg) {
			if !slices.Contains(result.Restart, key) {
				result.Applied = append(result.Applied, key)
			}
		}
		if err := n.reload(ctx, cfg, &result); err != nil {
			return result, d.refuseReload(err)
		}
		d.apply(cfg)
	}
	problems := restartProblems(result.Restart)
	if n != nil {
		key := n.nodeKeyProblems()
		problems, result.Problems = append(problems, key...), key
	}
	d.problems.Store(&problems)
	d.log.Info("reloaded", "applied", result.Applied, "restart_needed", result.Restart, "acknowledged", result.Acknowledged)
	d.hub.Publish(api.Event{Kind: api.EventReloaded, Text: "the daemon read its configuration again"})
	return result, nil
}

func (d *Daemon) refuseReload(err error) error {
	d.log.Error("reload refused, what was in force stays", systemd.MsgConfigRefused.Attr(), "error", err)
	_, p := d.whyLocked(err)
	p.Text = "the last reload was refused: " + p.Text
	d.problems.Store(&[]api.Problem{p})
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	return api.Errorf(api.CodeBadRequest, "reload refused, what was in force stays: %v", err).
		WithHint("%s", p.Fix)
}

func restartProblems(keys []string) []api.Problem {
	out := []api.Problem{}
	if len(keys) > 0 {
		out = append(out, api.Problem{Text: fmt.Sprintf("changed in the configuration but not in force: %v", keys), Fix: "restart the daemon"})
	}
	return out
}

func (d *Daemon) reloadCommand() string {
	if d.o.perUser() {
		return "fastn --home " + api.ShellQuote(d.place.dir) + " daemon reload"
	}
	return "systemctl reload fastnd"
}

func (d *Daemon) restartCommand() string {
	if d.o.perUser() {
		return fmt.Sprintf("fastn --home %[1]s daemon stop && fastn --home %[1]s daemon start", api.ShellQuote(d.place.dir))
	}
	return "systemctl restart fastnd.service"
}

// replaceCommand is restartCommand where nobody reaches the socket any more.
func (d *Daemon) replaceCommand() string {
	if d.o.perUser() {
		return fmt.Sprintf("kill %[1]d; tail --pid=%[1]d -f /dev/null; fastn --home %[2]s daemon start", os.Getpid(), api.ShellQuote(d.place.dir))
	}
	return d.restartCommand()
}

// restoreCommand puts a backup in the place of all that is stored.
func (d *Daemon) restoreCommand() string {
	dir := api.ShellQuote(d.place.dir)
	if !d.o.perUser() {
		return fmt.Sprintf("systemctl stop fastn.socket fastnd.service && mv %[1]s %[1]s.old && fastnd --restore FILE && systemctl start fastn.socket fastnd.service", dir)
	}
	return fmt.Sprintf("fastn --home %[1]s daemon stop && mv %[1]s %[1]s.old && fastn --home %[1]s daemon restore FILE && fastn --home %[1]s daemon start", dir)
}

// whyLocked names what keeps the node from starting, and what to do.
func (d *Daemon) whyLocked(err error) (systemd.MessageID, api.Problem) {
	p := problemOf(err, "mend it, then: "+d.reloadCommand())
	if r, ok := errors.AsType[*keystore.Refusal](err); ok {
		if r.Command {
			p.Fix = r.Fix + " && " + d.reloadCommand()
		} else {
			p.Fix = r.Fix + ", then: " + d.reloadCommand()
		}
		return systemd.MsgKeystoreLocked, p
	}
	if errors.Is(err, sqlite.ErrNewer) { // a damaged one, too
		p.Fix = "install the newer version of fastn again, or restore a backup of " + api.ShellQuote(d.place.dir) + ", then: " + d.reloadCommand()
		return systemd.MsgStoreDamaged, p
	}
	if isDisk(err) && !errors.Is(err, sqlite.ErrUnsafeFile) {
		id, why, fix := d.diagnose(err)
		return id, api.Problem{Text: why + ", and fastnd cannot start its node", Fix: fix}
	}
	switch {
	case errors.Is(err, sqlite.ErrUnsafeFile):
		p.Fix = "move it away, then: " + d.reloadCommand()
	case errors.Is(err, fs.ErrPermission) && !d.o.perUser():
		p.Fix = fmt.Sprintf(unitFix, "make the folder accessible to the unit's user, and remove what the unit does to it")
	}
	if f, ok := errors.AsType[*startError](err); ok {
		return f.id, p
	}
	return systemd.MsgKeystoreLocked, p
}

// startError is a failure to start the node that is not the keystore's.
type startError struct {
	id  systemd.MessageID
	err error
}

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }
